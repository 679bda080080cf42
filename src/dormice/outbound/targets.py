"""Where a URL leads, and what addresses nobody may have the server connect to, whatever an operator allows.

A URL is checked for its form when it is named, and every address that its name stands for when a connection is made: a name
may mean something else by then.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Protocol
from urllib.parse import SplitResult, urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

URL_CHARACTERS: Final = 2048
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]*")  # no blanks and no line ends: urlsplit would drop some of them silently
_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NUMBER: Final = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_NEVER: Final = (
    ip_network("0.0.0.0/8"),  # "this host"
    ip_network("255.255.255.255"),
    # Where clouds answer with a machine's credentials, besides the link-local 169.254.169.254:
    ip_network("fd00:ec2::/32"),  # AWS
    ip_network("fd20:ce::254"),  # Google
    ip_network("168.63.129.16"),  # Azure
    ip_network("100.100.100.200"),  # Alibaba
    ip_network("192.0.0.192"),  # Oracle
    # What no host on the Internet has, and some systems take for another address, or for one near them:
    ip_network("::ffff:0:0:0/96"),  # IPv4 addresses as SIIT translates them
    ip_network("fec0::/10"),  # site-local
    ip_network("3fff::/20"),  # for documentation
    ip_network("5f00::/16"),  # segment identifiers
)
_COMPATIBLE: Final = IPv6Network("::/96")
"""IPv4 addresses as they were once embedded. Loopback is in it, and none of them."""


class UnusableUrl(ValueError):
    """The URL cannot be called. The message says why and never repeats the URL, which may hold a secret."""


class Policy(Protocol):
    """Which addresses may be connected to."""

    @property
    def answer_bytes(self) -> int:
        """How long an answer may be, with its head."""
        ...

    def allows(self, host: str, address: Address) -> bool:
        """Whether `address` may be connected to for a URL with `host` in it."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL says. `host` is what is looked up, `authority` what the Host header says."""

    tls: bool
    host: str
    port: int
    authority: str
    path: str
    query: str
    literal: Address | None

    @property
    def origin(self) -> str:
        return f"http{'s' * self.tls}://{self.authority}"


@lru_cache(maxsize=1024)
def target_of(url: str) -> Target:
    """Take a URL apart. Raises UnusableUrl."""
    if len(url) > URL_CHARACTERS:
        raise UnusableUrl(f"it has {len(url)} characters, the limit is {URL_CHARACTERS}: give a shorter one")
    if not _PRINTABLE.fullmatch(url):
        raise UnusableUrl(
            "it may have printable ASCII characters only: encode others (punycode in the host, % in the path)"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its words could have a password in them
        raise UnusableUrl("it is not a URL, or its port is not one: give one like https://example.com:8000") from None
    if parts.scheme not in {"http", "https"}:
        raise UnusableUrl("it must start with http:// or https://")
    if "@" in parts.netloc:
        raise UnusableUrl("it may have no user name and no password: leave out what stands before the @")
    if "#" in url:
        raise UnusableUrl("it may have no fragment: leave out # and what follows")
    if port == 0:
        raise UnusableUrl("port 0 cannot be connected to: give one from 1 to 65535")
    return _target(parts, port or (443 if parts.scheme == "https" else 80))


def forbidden(address: Address) -> bool:
    """Whether nobody may be connected to there: link-local, multicast, unspecified, reserved, or a cloud's metadata service."""
    return any(
        each.is_link_local
        or each.is_multicast
        or each.is_unspecified
        or any(each in network for network in _NEVER)
        or (each in _COMPATIBLE and not each.is_loopback)
        for each in meanings(address)
    )


def meanings(address: Address) -> list[Address]:
    """List the address and the IPv4 addresses that it stands for: mapped, behind NAT64, and in 6to4."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    behind = [IPv4Address(int(address) & 0xFFFF_FFFF)] if address in _NAT64 else []
    return [address, *behind, *([address.sixtofour] if address.sixtofour else [])]


@dataclass(frozen=True, slots=True)
class AllowList:
    """Networks, and names that stand for themselves and all names below them."""

    networks: tuple[Network, ...]
    names: tuple[str, ...]

    @classmethod
    def read(cls, entries: tuple[str, ...]) -> AllowList:
        """Read `10.0.0.0/8`, `192.0.2.7`, `example.com`. Raises ValueError for an entry that is neither network nor name."""
        read = [_entry(entry) for entry in entries]
        return cls(
            tuple(each for each in read if not isinstance(each, str)),
            tuple(each for each in read if isinstance(each, str)),
        )

    def has_name(self, host: str) -> bool:
        """Whether a name is one of them, or below one."""
        return any(host == name or host.endswith(f".{name}") for name in self.names)

    def has_address(self, address: Address) -> bool:
        """Whether an address is in one of the networks; a mapped one counts as what it stands for."""
        inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any((inner or address) in network for network in self.networks)


def _entry(entry: str) -> Network | str:
    try:
        return ip_network(entry)
    except ValueError:
        name = entry.lower().strip(".")
        if not _NAME.fullmatch(name) or _NUMBER.fullmatch(name):
            raise ValueError(
                f"{entry!r} is neither a network (10.0.0.0/8, without host bits) nor a host name (example.com)"
            ) from None
        return name


def _target(parts: SplitResult, port: int) -> Target:
    host = (parts.hostname or "").removesuffix(".")
    literal = _literal(host)
    if literal is None and (not _NAME.fullmatch(host) or _NUMBER.fullmatch(host)):
        raise UnusableUrl(
            "it has no host that can be looked up: give a name, an IPv4 address, or an IPv6 address in []"
        )
    return Target(
        tls=parts.scheme == "https",
        host=host if literal is None else str(literal),
        port=port,
        authority=parts.netloc,
        path=parts.path,
        query=parts.query,
        literal=literal,
    )


def _literal(host: str) -> Address | None:
    """Read an address in every way in which connecting reads it: 127.1 and 0x7f000001 are loopback too."""
    if "%" in host or not host.isascii():
        return None  # a zone is for link-local addresses
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST) if host else []
    except (OSError, UnicodeError):
        return None
    return ip_address(found[0][4][0]) if found else None
