"""What the host's own network looks like: its ways out, its routes, and whether it forwards."""

from __future__ import annotations

import fcntl
import socket
import struct
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_INTERFACES = Path("/sys/class/net")
_ETHERNET_MTU = 1500
_SIOCGIFMTU = 0x8921
_SIOCGIFADDR = 0x8915


def routes() -> list[tuple[str, IPv4Network]]:
    """The main routing table's routes: interface (`*` where there is none) and target."""
    found = []
    for line in Path("/proc/thread-self/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        target, mask = (IPv4Address(int(text, 16).to_bytes(4, "little")) for text in (fields[1], fields[7]))
        found.append((fields[0], IPv4Network(f"{target}/{mask}")))
    return found


def routes_within(network: IPv4Network, *, besides: str) -> list[IPv4Network]:
    """Routes that overlap with `network`, apart from the default route and those of interfaces called `besides`*."""
    return [
        target
        for interface, target in routes()
        if target.prefixlen > 0
        and target.overlaps(network)
        and not interface.startswith(besides)
        and (interface, target) != ("*", network)
    ]


def mtu() -> int:
    """The smallest MTU of the interfaces that lead to the default route, in bytes."""
    ways = {interface for interface, target in routes() if target.prefixlen == 0} - {"*"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        return min((_mtu_of(way, asking) for way in ways), default=_ETHERNET_MTU)


def _mtu_of(interface: str, asking: socket.socket) -> int:
    answer = fcntl.ioctl(asking, _SIOCGIFMTU, struct.pack("16sI12x", interface.encode(), 0))
    return int(struct.unpack_from("16xI", answer)[0])


def address_labelled(label: str) -> IPv4Address | None:
    """The first address with this label, which begins with an interface's name; None if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("16s24x", label.encode()))
        except OSError:
            return None
    return IPv4Address(answer[20:24])


def physical_interfaces() -> list[str]:
    """Interfaces with a device behind them, and those of the default route."""
    names = {name for _, name in socket.if_nameindex() if (_INTERFACES / name / "device").exists()}
    return sorted((names | {interface for interface, target in routes() if target.prefixlen == 0}) - {"*"})


def forwarding() -> bool:
    return _FORWARD.read_text().strip() == "1"


def set_forwarding(*, on: bool) -> None:
    if forwarding() != on:
        _FORWARD.write_text(str(int(on)))


def disable_ipv6(interface: str) -> None:
    setting = Path("/proc/sys/net/ipv6/conf") / interface / "disable_ipv6"
    if setting.exists():  # not in a kernel without IPv6
        setting.write_text("1")
