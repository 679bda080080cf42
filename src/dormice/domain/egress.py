"""What a machine may reach: nothing, everything public, or the names and networks of a list.

Addresses that are not public are reached by no machine, whatever its list says; nor is anything at a name that points there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

UNREACHABLE = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # the metadata service of Azure, at a public address
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",  # and that of the older Oracle cloud
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
"""What machines may not reach, besides every address of the host itself and each other."""

_NAME_CHARS = 253
_SHOWN_CHARS = 64
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_ANY_BELOW = "*."
_IN_NETWORKS = frozenset("0123456789abcdef.:/")
_POLICIES = frozenset({"public", "none"})
_WORDS = "a domain name such as example.com, *.example.com for all names below it, or an IPv4 address or network such as 1.2.3.0/24"


class BadEntry(ValueError):
    """An entry of an allow-list cannot be; the message says why."""


@dataclass(frozen=True, slots=True)
class Egress:
    """A machine's policy: with no list everything public, with an empty one nothing, not even the nameserver."""

    allow: tuple[str, ...] | None = None
    """Names in lower case, `*.` before one for all below it, and IPv4 networks."""

    @property
    def networks(self) -> tuple[IPv4Network, ...]:
        """The networks of the list."""
        return tuple(network for network in map(_network, self.allow or ()) if network is not None)

    def allows_name(self, name: str) -> bool:
        """Whether machines may ask for a name, written without the final dot."""
        if self.allow is None:
            return True
        name = name.lower()
        above = (name[dot + 1 :] for dot, letter in enumerate(name) if letter == ".")
        return name in self.allow or any(f"{_ANY_BELOW}{parent}" in self.allow for parent in above)


PUBLIC = Egress()
NOTHING = Egress(())


def allow_list(entries: Sequence[str]) -> Egress:
    """The policy of a list, its entries in their plain form and each once. Raises BadEntry."""
    return Egress(tuple(dict.fromkeys(map(_plain, entries))))


def _plain(entry: str) -> str:
    if (network := _network(entry.strip())) is not None:
        if any(network.subnet_of(denied) for denied in UNREACHABLE):
            raise BadEntry(f"{entry} is not public, and no machine reaches it")
        return str(network)
    name = entry.strip().lower().removesuffix(".")
    if name in _POLICIES:
        raise BadEntry(f"{name} is a policy of its own and stands alone, in no list")
    if len(name) > _NAME_CHARS or not _NAME.fullmatch(name) or name.rpartition(".")[2].isdecimal():
        raise BadEntry(f"{entry[:_NAME_CHARS]!r} must be {_WORDS}")
    if "." not in name:
        raise BadEntry(f"{entry!r} has no dot and must be {_WORDS}; public or none, alone, in place of a list")
    return name


def _network(text: str) -> IPv4Network | None:
    """The network, or the one address, that an entry is; None if it is a name. Raises BadEntry."""
    try:
        network: IPv4Network | IPv6Network = ip_network(text)
    except ValueError:
        if "/" in text and not _IN_NETWORKS.issuperset(text.lower()):
            raise BadEntry(
                f"{text[:_SHOWN_CHARS]!r} is a URL: give its host's name alone, such as example.com"
            ) from None
        if "/" in text:
            raise BadEntry(f"{text[:_SHOWN_CHARS]!r} must be {_WORDS}; no bits may be set behind its prefix") from None
        return None
    if isinstance(network, IPv6Network):
        raise BadEntry(f"{text} is IPv6, which machines do not have")
    return network
