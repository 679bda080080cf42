"""Where the server may push to. A worker names the address itself, so it is a way to make the server call addresses.

A URL is checked for its form when it is registered, and every address that its name stands for when a connection is
made: a name may mean something else by then.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, urlsplit

from dormice.domain.errors import Invalid

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
)


@dataclass(frozen=True)
class PushPolicy:
    """Where workers may be, and how long and how much they are listened to.

    `allowed` has networks (`10.0.0.0/8`, `192.0.2.7`) and host names, which stand for themselves and all names below
    them (`example.com`); empty, it allows every address, private ones too. Whatever it says, an address is never
    link-local, multicast, unspecified or a cloud's metadata service, and loopback only with `loopback`.
    `timeout_seconds` and `cancel_timeout_seconds` (above 0) are for a whole call, `answer_bytes` (above 0) for an
    answer with its head. Raises ValueError for an entry of `allowed` that is neither a network nor a name.
    """

    loopback: bool
    allowed: tuple[str, ...] = ()
    timeout_seconds: float = 10.0
    cancel_timeout_seconds: float = 30.0
    answer_bytes: int = 64 * 1024
    networks: tuple[Network, ...] = field(init=False, repr=False)
    names: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        read = [_allowed(entry) for entry in self.allowed]
        object.__setattr__(self, "networks", tuple(each for each in read if not isinstance(each, str)))
        object.__setattr__(self, "names", tuple(each for each in read if isinstance(each, str)))

    def allows_name(self, host: str) -> bool:
        """Whether a worker of this name may be anywhere that is not forbidden."""
        return not self.allowed or any(host == name or host.endswith(f".{name}") for name in self.names)

    def allows(self, host: str, address: Address) -> bool:
        """Whether `address` may be connected to for a URL with `host` in it."""
        if any(self._forbids(each) for each in _meanings(address)):
            return False
        inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return self.allows_name(host) or any((inner or address) in network for network in self.networks)

    def _forbids(self, address: Address) -> bool:
        return (
            address.is_link_local
            or address.is_multicast
            or address.is_unspecified
            or (address.is_loopback and not self.loopback)
            or any(address in network for network in _NEVER)
        )


@dataclass(frozen=True, slots=True)
class Target:
    """What a push URL says. `host` is what is looked up, `authority` what the Host header says."""

    tls: bool
    host: str
    port: int
    authority: str
    path: str
    literal: Address | None

    @property
    def origin(self) -> str:
        return f"http{'s' * self.tls}://{self.authority}"


def check_push_url(url: str, policy: PushPolicy) -> None:
    """Check the form of a worker's URL; nothing is looked up. Raises Invalid (400)."""
    target = push_target(url)
    if target.literal is not None:
        if not policy.allows(target.host, target.literal):
            raise _invalid(f"{target.host} is an address that this server does not push to{_remedy(policy)}")
    elif not policy.loopback and (target.host == "localhost" or target.host.endswith(".localhost")):
        raise _invalid(f"{target.host} is this server's own host: give the worker's address as this server sees it")
    elif not policy.allows_name(target.host) and not policy.networks:
        raise _invalid(f"{target.host} is a name that this server does not push to{_remedy(policy)}")


@lru_cache(maxsize=1024)
def push_target(url: str) -> Target:
    """Take a push URL apart. Raises Invalid (400)."""
    if len(url) > URL_CHARACTERS:
        raise _invalid(f"it has {len(url)} characters, the limit is {URL_CHARACTERS}: give a shorter one")
    if not _PRINTABLE.fullmatch(url):
        raise _invalid(
            "it may have printable ASCII characters only: encode others (punycode in the host, % in the path)"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its words could have a password in them
        raise _invalid(
            "it is not a URL, or its port is not one: give one like http://worker.example.com:8000"
        ) from None
    if parts.scheme not in {"http", "https"}:
        raise _invalid("it must start with http:// or https://")
    if "@" in parts.netloc:
        raise _invalid("it may have no user name and no password: leave out what stands before the @")
    if "?" in url or "#" in url:
        raise _invalid(
            "it may have no query and no fragment, as /execute is added to it: leave out ? and # and what follows"
        )
    if port == 0:
        raise _invalid("port 0 cannot be connected to: give one from 1 to 65535")
    return _target(parts, port or (443 if parts.scheme == "https" else 80))


def _target(parts: SplitResult, port: int) -> Target:
    host = (parts.hostname or "").removesuffix(".")
    literal = _literal(host)
    if literal is None and (not _NAME.fullmatch(host) or _NUMBER.fullmatch(host)):
        raise _invalid("it has no host that can be looked up: give a name, an IPv4 address, or an IPv6 address in []")
    return Target(
        tls=parts.scheme == "https",
        host=host if literal is None else str(literal),
        port=port,
        authority=parts.netloc,
        path=parts.path.rstrip("/"),
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


def _meanings(address: Address) -> list[Address]:
    """List the address and the IPv4 addresses that it stands for: mapped, behind NAT64, and in 6to4."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    behind = [IPv4Address(int(address) & 0xFFFF_FFFF)] if address in _NAT64 else []
    return [address, *behind, *([address.sixtofour] if address.sixtofour else [])]


def _allowed(entry: str) -> Network | str:
    try:
        return ip_network(entry)
    except ValueError:
        name = entry.lower().strip(".")
        if not _NAME.fullmatch(name) or _NUMBER.fullmatch(name):
            raise ValueError(
                f"{entry!r} is neither a network (10.0.0.0/8, without host bits) nor a host name (example.com)"
            ) from None
        return name


def _remedy(policy: PushPolicy) -> str:
    return f"; allowed are {', '.join(policy.allowed)}" if policy.allowed else ": give the worker's own address"


def _invalid(problem: str) -> Invalid:
    return Invalid(f"push_endpoint_url: {problem}", location="body.push_endpoint_url", status=400)
