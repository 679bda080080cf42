"""The dozen kernel requests that a machine's network takes, spoken directly over netlink.

A socket belongs for good to the network namespace it was opened in, whatever thread or namespace uses it later: that is
how the host configures the inside of a namespace without entering it. All calls block for microseconds to milliseconds
(the kernel's one network lock), so they run in worker threads.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Self

_NLM_REQUEST, _NLM_ACK, _NLM_DUMP, _NLM_REPLACE, _NLM_EXCL, _NLM_CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_DELADDR = 16, 17, 18, 20, 21
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_NEWNEIGH = 24, 25, 28
_IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 16, 18, 28
_LINK_HEADER, _OPER_UP = 16, b"\6"
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL = 1, 2, 3
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RTN_UNICAST, _RTN_UNREACHABLE = (
    254,
    4,
    0,
    253,
    1,
    7,
)
_NDA_DST, _NDA_LLADDR, _NUD_PERMANENT = 1, 2, 0x80
_NLA_F_NESTED = 0x8000
_NETLINK_NETFILTER = 12
_CT_GET, _CT_DELETE = 0x101, 0x102
_CTA_TUPLE_ORIG, _CTA_FILTER, _CTA_FILTER_ORIG_FLAGS, _CTA_FILTER_REPLY_FLAGS = 1, 25, 1, 2
_CTA_TUPLE_IP, _CTA_IP_V4_SRC, _CTA_IP_V4_DST, _FILTER_BY_SOURCE = 1, 1, 2, 1
_TYPE_MASK = 0x3FFF
_NETLINK_SOCK_DIAG, _BY_FAMILY = 4, 20
_INET_DIAG_SKMEMINFO, _EVERY_STATE, _ANY_SOCKET, _DIAG_HEADER = 7, 0xFFFF_FFFF, bytes(48), 72
_HEADER_SIZE, _ATTRIBUTE_SIZE = 16, 4
_NFNLGRP_NFTABLES, _NFT_DELTABLE = 7, 0xA02
_BATCH_BEGIN, _BATCH_END, _NFT_NEWSETELEM, _NFT_DELSETELEM = 0x10, 0x11, 0xA0C, 0xA0E
_NFNL_SUBSYS_NFTABLES, _NFPROTO_INET = 10, 1
_NFTA_LIST_TABLE, _NFTA_LIST_SET, _NFTA_LIST_ELEMENTS, _NFTA_LIST_ELEM = 1, 2, 3, 1
_NFTA_ELEM_KEY, _NFTA_ELEM_TIMEOUT, _NFTA_DATA_VALUE = 1, 4, 1
_GONE = (errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL)

LOOPBACK_INDEX = 1


class RouteSocket:
    """Links, addresses, routes and neighbours of the namespace the calling thread is in now. Errors are OSError."""

    def __init__(self) -> None:
        self._netlink = _Netlink(socket.NETLINK_ROUTE)

    def add_veth(self, name: str, mac: bytes, *, mtu: int, peer: str, peer_mac: bytes, netns: int) -> None:
        """A pair of interfaces, both down: `name` here, `peer` in the namespace of the descriptor `netns`."""
        inside = (
            _link()
            + _attr(_IFLA_IFNAME, _text(peer))
            + _attr(_IFLA_ADDRESS, peer_mac)
            + _attr(_IFLA_MTU, struct.pack("=I", mtu))
            + _attr(_IFLA_NET_NS_FD, struct.pack("=I", netns))
        )
        kind = _attr(_IFLA_INFO_KIND, b"veth") + _attr(_IFLA_INFO_DATA, _attr(_VETH_INFO_PEER, inside))
        outside = (
            _link()
            + _attr(_IFLA_IFNAME, _text(name))
            + _attr(_IFLA_ADDRESS, mac)
            + _attr(_IFLA_MTU, struct.pack("=I", mtu))
        )
        self._create(_RTM_NEWLINK, outside + _attr(_IFLA_LINKINFO, kind), name)

    def index(self, name: str) -> int:
        """The number that the namespace gave the interface `name`."""
        for message in self._netlink.request(_RTM_GETLINK, _NLM_ACK, _link() + _attr(_IFLA_IFNAME, _text(name)), name):
            return int(struct.unpack_from("=i", message, 4)[0])
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name)

    def set_up(self, index: int) -> None:
        self._netlink.request(_RTM_NEWLINK, _NLM_ACK, _link(index=index, flags=_IFF_UP), f"interface {index}")

    def sends(self, index: int) -> bool:
        """Whether an interface sends what it is given. One whose peer was set up after it begins to a moment later, and drops all until then.

        Newer kernels hurry when they are asked.
        """
        [message] = self._netlink.request(_RTM_GETLINK, _NLM_ACK, _link(index=index), f"interface {index}")
        return dict(_attributes(message[_LINK_HEADER:])).get(_IFLA_OPERSTATE) == _OPER_UP

    def delete_link(self, name: str) -> None:
        """Delete an interface, and with it its peer, addresses and routes. One that is gone is no error."""
        self._delete(_RTM_DELLINK, _link() + _attr(_IFLA_IFNAME, _text(name)), name)

    def add_address(self, index: int, address: IPv4Address, *, label: str) -> None:
        """`label` begins with the interface's name; `ip address` shows it."""
        payload = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, index)
        payload += (
            _attr(_IFA_LOCAL, address.packed) + _attr(_IFA_ADDRESS, address.packed) + _attr(_IFA_LABEL, _text(label))
        )
        self._create(_RTM_NEWADDR, payload, str(address), replace=True)

    def add_route(self, target: IPv4Network, *, index: int, gateway: IPv4Address | None = None) -> None:
        scope = _RT_SCOPE_UNIVERSE if gateway else _RT_SCOPE_LINK
        payload = _route(target, scope, _RTN_UNICAST) + _attr(_RTA_OIF, struct.pack("=I", index))
        if gateway:
            payload += _attr(_RTA_GATEWAY, gateway.packed)
        self._create(_RTM_NEWROUTE, payload, str(target), replace=True)

    def add_unreachable(self, target: IPv4Network) -> None:
        """Addresses in `target` without a longer route go nowhere instead of out of the default route."""
        self._create(_RTM_NEWROUTE, _route(target, _RT_SCOPE_UNIVERSE, _RTN_UNREACHABLE), str(target), replace=True)

    def delete_address(self, index: int, address: IPv4Address) -> None:
        """One that is gone is no error."""
        payload = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, index) + _attr(_IFA_LOCAL, address.packed)
        self._delete(_RTM_DELADDR, payload, str(address))

    def delete_unreachable(self, target: IPv4Network) -> None:
        """The counterpart of `add_unreachable`. One that is gone is no error."""
        self._delete(_RTM_DELROUTE, _route(target, _RT_SCOPE_UNIVERSE, _RTN_UNREACHABLE), str(target))

    def add_neighbour(self, index: int, address: IPv4Address, mac: bytes) -> None:
        """A permanent one: the address needs no ARP."""
        payload = struct.pack("=BxxxiHBB", socket.AF_INET, index, _NUD_PERMANENT, 0, 0)
        payload += _attr(_NDA_DST, address.packed) + _attr(_NDA_LLADDR, mac)
        self._create(_RTM_NEWNEIGH, payload, str(address), replace=True)

    def close(self) -> None:
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _create(self, kind: int, payload: bytes, what: str, *, replace: bool = False) -> None:
        flags = _NLM_ACK | _NLM_CREATE | (_NLM_REPLACE if replace else _NLM_EXCL)
        self._netlink.request(kind, flags, payload, what)

    def _delete(self, kind: int, payload: bytes, what: str) -> None:
        try:
            self._netlink.request(kind, _NLM_ACK, payload, what)
        except OSError as error:
            if error.errno not in _GONE:
                raise


class TableEvents:
    """Tells when some packet filter table of this namespace was deleted. Never blocks; watch `fileno` for reading."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER
        )
        self._socket.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))

    def fileno(self) -> int:
        return self._socket.fileno()

    def deleted(self) -> bool:
        """Whether one may have been since the last call; reads everything that has come."""
        found = False
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS: some were lost
                found = True
                continue
            offset = 0
            while offset + _HEADER_SIZE <= len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                found = found or kind == _NFT_DELTABLE
                offset += _stride(length, _HEADER_SIZE)

    def close(self) -> None:
        self._socket.close()


def forget_flows(source: IPv4Address, *, keep: Callable[[IPv4Address], bool] = lambda _: False) -> int:
    """Delete every connection tracking entry that `source` began, but to addresses to `keep`; the number deleted. Raises OSError."""
    family = struct.pack("=BBH", socket.AF_INET, 0, 0)
    origin = _nest(_CTA_TUPLE_ORIG, _nest(_CTA_TUPLE_IP, _attr(_CTA_IP_V4_SRC, source.packed)))
    by_source = _attr(_CTA_FILTER_ORIG_FLAGS, struct.pack("=I", _FILTER_BY_SOURCE))
    wanted = _nest(_CTA_FILTER, by_source + _attr(_CTA_FILTER_REPLY_FLAGS, struct.pack("=I", 0)))
    netlink = _Netlink(_NETLINK_NETFILTER)
    try:
        tuples = [
            _attr(kind, value)
            for message in netlink.request(_CT_GET, _NLM_DUMP, family + origin + wanted, f"connections of {source}")
            for kind, value in _attributes(message[len(family) :])
            if kind & _TYPE_MASK == _CTA_TUPLE_ORIG and not keep(_target(value))
        ]
        for flow in tuples:
            try:
                netlink.request(_CT_DELETE, _NLM_ACK, family + flow, f"connection of {source}")
            except OSError as error:
                if error.errno not in _GONE:
                    raise
        return len(tuples)
    finally:
        netlink.close()


def keep_elements(table: str, name: str, elements: Mapping[bytes, int]) -> None:
    """Have elements in a set of a table (family inet) for so many seconds from now, whether or not they are in it. Raises OSError.

    An element that is there would keep its timeout, so it is deleted, which wants it to be there: all in one transaction.
    """
    steps = (
        (_NFT_NEWSETELEM, _NLM_CREATE, _elements(table, name, elements)),
        (_NFT_DELSETELEM, 0, _elements(table, name, dict.fromkeys(elements, 0))),
        (_NFT_NEWSETELEM, _NLM_CREATE, _elements(table, name, elements)),
    )
    edge = struct.pack(">BBH", socket.AF_UNSPEC, 0, _NFNL_SUBSYS_NFTABLES)
    netlink = _Netlink(_NETLINK_NETFILTER)
    try:
        netlink.transact([(_BATCH_BEGIN, 0, edge), *steps, (_BATCH_END, 0, edge)], len(steps), f"set {name} of {table}")
    finally:
        netlink.close()


def _elements(table: str, name: str, elements: Mapping[bytes, int]) -> bytes:
    listed = b"".join(
        _nest(
            _NFTA_LIST_ELEM,
            _nest(_NFTA_ELEM_KEY, _attr(_NFTA_DATA_VALUE, key))
            + (_attr(_NFTA_ELEM_TIMEOUT, struct.pack(">Q", seconds * 1000)) if seconds else b""),
        )
        for key, seconds in elements.items()
    )
    where = _attr(_NFTA_LIST_TABLE, _text(table)) + _attr(_NFTA_LIST_SET, _text(name))
    return struct.pack("=BBH", _NFPROTO_INET, 0, 0) + where + _nest(_NFTA_LIST_ELEMENTS, listed)


def _target(flow: bytes) -> IPv4Address:
    addresses = next(value for kind, value in _attributes(flow) if kind & _TYPE_MASK == _CTA_TUPLE_IP)
    return IPv4Address(next(value for kind, value in _attributes(addresses) if kind & _TYPE_MASK == _CTA_IP_V4_DST))


def waiting_in_inet_sockets() -> int:
    """The bytes that wait in TCP and UDP sockets of the namespace the calling thread is in, errors and half messages included.

    Raises OSError.
    """
    netlink = _Netlink(_NETLINK_SOCK_DIAG)
    total = 0
    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
                wanted = struct.pack("=BBBxI", family, protocol, 1 << (_INET_DIAG_SKMEMINFO - 1), _EVERY_STATE)
                for message in netlink.request(_BY_FAMILY, _NLM_DUMP, wanted + _ANY_SOCKET, "sockets"):
                    for kind, value in _attributes(message[_DIAG_HEADER:]):
                        if kind == _INET_DIAG_SKMEMINFO:
                            received, _, sending = struct.unpack_from("=3I", value)
                            total += received + sending
    finally:
        netlink.close()
    return total


class _Netlink:
    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0

    def request(self, kind: int, flags: int, payload: bytes, what: str) -> list[bytes]:
        """Send one request; the payloads of all messages up to its acknowledgement. Raises OSError naming `what`."""
        self._send(kind, flags, payload)
        return list(self._answers(what))

    def transact(self, messages: Sequence[tuple[int, int, bytes]], steps: int, what: str) -> None:
        """Send messages as one; those between the first and the last are `steps` that are acknowledged. Raises OSError."""
        batch = b""
        for kind, flags, payload in messages:
            self._sequence += 1
            wanted = flags | _NLM_REQUEST | (_NLM_ACK if kind not in (_BATCH_BEGIN, _BATCH_END) else 0)
            batch += struct.pack("=IHHII", 16 + len(payload), kind, wanted, self._sequence, 0) + payload
        self._socket.send(batch)
        while steps:
            data, offset = self._socket.recv(1 << 16), 0
            while offset + _HEADER_SIZE <= len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                if kind == _NLMSG_ERROR:
                    if code := -struct.unpack_from("=i", data, offset + _HEADER_SIZE)[0]:
                        raise OSError(code, os.strerror(code), what)
                    steps -= 1
                offset += _stride(length, _HEADER_SIZE)

    def close(self) -> None:
        self._socket.close()

    def _send(self, kind: int, flags: int, payload: bytes) -> None:
        self._sequence += 1
        header = struct.pack("=IHHII", 16 + len(payload), kind, _NLM_REQUEST | flags, self._sequence, 0)
        self._socket.send(header + payload)

    def _answers(self, what: str) -> Iterator[bytes]:
        while True:
            data = self._socket.recv(1 << 16)
            offset = 0
            while offset + _HEADER_SIZE <= len(data):
                length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data, offset)
                body = data[offset + _HEADER_SIZE : offset + length]
                offset += _stride(length, _HEADER_SIZE)
                if sequence != self._sequence:
                    continue
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if code:
                        raise OSError(code, os.strerror(code), what)
                    return
                yield body


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE_SIZE <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        yield kind, data[offset + _ATTRIBUTE_SIZE : offset + length]
        offset += _stride(length, _ATTRIBUTE_SIZE)


def _attr(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(_aligned(length) - length)


def _nest(kind: int, value: bytes) -> bytes:
    return _attr(kind | _NLA_F_NESTED, value)


def _stride(length: int, least: int) -> int:
    """How far it is to what follows. Raises OSError where what is there claims to be shorter than its own header."""
    if length < least:
        raise OSError(errno.EBADMSG, "netlink: a length that cannot be")
    return _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def _link(*, index: int = 0, flags: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def _route(target: IPv4Network, scope: int, kind: int) -> bytes:
    header = (socket.AF_INET, target.prefixlen, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, scope, kind, 0)
    destination = _attr(_RTA_DST, target.network_address.packed) if target.prefixlen else b""
    return struct.pack("=BBBBBBBBI", *header) + destination
