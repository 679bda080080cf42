"""A host with an internet around it, both made of network namespaces: nothing of the real host is touched.

The test's own thread becomes the host. Sockets are opened in the namespace they shall speak from and then used from the
test's event loop, so no processes are needed inside.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.wait import wait_until

from dormice.node.netlink import RouteSocket
from dormice.node.syscalls import setns, unshare

CLONE_NEWNET = 0x4000_0000
HOST_PUBLIC = "203.0.113.1"
HOST_PRIVATE = "192.168.77.1"
INTERNET = "203.0.113.2"
ELSEWHERE = "198.51.100.7"
"""Another public address, beyond the host's own link."""
DENIED = [
    "10.99.0.5", "100.64.1.1", "168.63.129.16", "169.254.169.254", "172.16.3.3", "172.31.255.254", "192.0.0.192", "192.168.5.5",
    "198.18.0.1",
]  # fmt: skip
"""One address of each range, all of them answering in the internet namespace."""


class Namespace:
    """A network namespace, by a path that somebody else keeps valid."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def socket(
        self, kind: int = socket.SOCK_STREAM, *, family: int = socket.AF_INET, protocol: int = 0
    ) -> socket.socket:
        """A non-blocking socket that lives in this namespace."""

        def opened() -> socket.socket:
            with self.path.open("rb") as namespace:
                setns(namespace.fileno(), CLONE_NEWNET)
            made = socket.socket(family, kind, protocol)
            made.setblocking(False)
            return made

        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(opened).result()

    def run(self, command: str) -> str:
        """Run `ip` and the like inside; the output. Raises CalledProcessError."""
        line = ["nsenter", f"--net={self.path}", *command.split()]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout


THE_HOST = Namespace(Path("/proc/thread-self/ns/net"))


@contextmanager
def new_namespace() -> Iterator[Namespace]:
    def made() -> int:
        unshare(CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    with ThreadPoolExecutor(max_workers=1) as thread:
        fd = thread.submit(made).result()
    try:
        yield Namespace(Path(f"/proc/{os.getpid()}/fd/{fd}"))
    finally:
        os.close(fd)


@contextmanager
def host_with_internet() -> Iterator[Namespace]:
    """Turn this thread into a host that has an internet; the internet's namespace."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with new_namespace() as internet:
            unshare(CLONE_NEWNET)
            Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
            ip("link set lo up")
            ip(f"link add up0 type veth peer name up0 netns {internet.path}")
            ip(f"address add {HOST_PUBLIC}/24 dev up0")
            ip(f"address add {HOST_PRIVATE}/24 dev up0")
            ip("link set up0 mtu 1400 up")
            ip(f"route add default via {INTERNET}")
            internet.run("ip link set lo up")
            internet.run(f"ip address add {INTERNET}/24 dev up0")
            for address in (ELSEWHERE, *DENIED):
                internet.run(f"ip address add {address}/32 dev up0")
            internet.run("ip link set up0 up")
            with RouteSocket() as host:
                index = host.index("up0")
                wait_until(lambda: host.sends(index), 10, "the host's link is up")
            internet.run(f"ip route add 10.213.0.0/16 via {HOST_PUBLIC}")
            yield internet
    finally:
        setns(before, CLONE_NEWNET)
        os.close(before)


def ip(command: str) -> None:
    """Run `ip` on the host."""
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)


def state_of_the_host() -> dict[str, str]:
    """What of the host's network could have been changed."""
    commands = ("ip -o link", "ip -o -4 address", "ip route", "nft list ruleset", "sysctl net.ipv4.ip_forward")
    return {
        command: subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout
        for command in commands
    }


def listening(namespace: Namespace, address: str, port: int) -> socket.socket:
    """A TCP listener."""
    server = namespace.socket()
    server.bind((address, port))
    server.listen(64)
    return server


def bound(namespace: Namespace, address: str, port: int = 0) -> socket.socket:
    """A UDP socket."""
    made = namespace.socket(socket.SOCK_DGRAM)
    made.bind((address, port))
    return made


async def connect(namespace: Namespace, address: str, port: int) -> socket.socket:
    """A TCP connection. Raises OSError as the kernel answers."""
    client = namespace.socket()
    try:
        await asyncio.get_running_loop().sock_connect(client, (address, port))
    except OSError:
        client.close()
        raise
    return client


async def receive(from_socket: socket.socket, *, within: float = 5.0) -> bytes:
    """The next datagram or piece of a stream."""
    async with asyncio.timeout(within):
        return await asyncio.get_running_loop().sock_recv(from_socket, 65_535)


def udp_packet(source: str, target: str, port: int, content: bytes) -> bytes:
    """A whole IPv4 packet from any source; the kernel fills in the checksum of a raw one."""
    udp = struct.pack(">HHHH", 4000, port, 8 + len(content), 0) + content
    header = (
        0x45,
        0,
        20 + len(udp),
        0,
        0,
        64,
        socket.IPPROTO_UDP,
        0,
        socket.inet_aton(source),
        socket.inet_aton(target),
    )
    return struct.pack(">BBHHHBBH4s4s", *header) + udp


def load_rules(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, check=True, capture_output=True, text=True)


def run_in_shell(command: str) -> None:
    """Run what a person would paste."""
    subprocess.run(["sh", "-ec", command], check=True, capture_output=True)
