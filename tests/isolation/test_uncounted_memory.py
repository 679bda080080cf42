"""Memory that no cgroup counts: a machine that hides it there is ended before the host feels it, and no other one is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from tests.node.machine_lab import machine, needs_machines, readable

from dormice.node import uncounted
from dormice.node.machines import ContainerRuntime
from dormice.node.runtime import MachineSpec

pytestmark = needs_machines

_HOARDS = {
    "answers of netlink": """
        s = socket.socket(16, 3, 0)
        kept.append(s)
        s.setsockopt(1, 8, 1 << 24)
        question = struct.pack("=IHHIIBBHiII", 32, 18, 1, 1, 0, 0, 0, 0, 1, 0, 0)
        for _ in range(4000): s.sendto(question, (0, 0))""",
    "pings": """
        s = socket.socket(2, 2, 1)
        kept.append(s)
        s.setsockopt(1, 8, 1 << 24)
        for _ in range(150): s.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 0) + bytes(60000), ("127.0.0.1", 0))""",
    "time stamps": """
        s = socket.socket(2, 2)
        kept.append(s)
        s.setsockopt(1, 8, 1 << 24)
        s.setsockopt(1, 37, 0x112)  # SO_TIMESTAMPING, of what is sent
        for _ in range(150): s.sendto(bytes(60000), ("127.0.0.1", 9))""",
    "errors": """
        s = socket.socket(2, 2)
        kept.append(s)
        s.setsockopt(1, 8, 1 << 24)
        s.setsockopt(0, 11, 1)  # IP_RECVERR
        for _ in range(4000):
            try: s.sendto(bytes(65507), ("127.0.0.1", 9))
            except OSError: pass""",
    "half datagrams": """
        s = socket.socket(2, 2)
        kept.append(s)
        s.connect(("127.0.0.1", 9))
        s.send(bytes(65000), 0x8000)  # MSG_MORE""",
}
_HOARD = """
import resource, socket, struct, time
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
kept = []
def hoard(n):
{hoard}
for n in range({times}):
    try: hoard(n)
    except OSError: pass
time.sleep(60)
"""
_TIMES = {"half datagrams": 3000}
"""Sockets. They hold well above what the machine was promised, and well below what would hurt the host of this test."""
LITTLE = MachineSpec(vcpu=1, memory_mib=64, storage_gib=1)


@pytest.fixture(name="guarded")
async def _guarded(runtime: ContainerRuntime) -> AsyncIterator[ContainerRuntime]:
    guard = asyncio.create_task(runtime.guard_memory())
    yield runtime
    guard.cancel()
    with suppress(asyncio.CancelledError):
        await guard


@pytest.fixture(name="short")
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host counts as short of memory."""
    monkeypatch.setattr(uncounted, "LOWEST", 1 << 60)
    monkeypatch.setattr(uncounted, "HIGHEST", 1 << 60)


@pytest.mark.parametrize("name", _HOARDS)
@pytest.mark.usefixtures("short")
async def test_a_machine_that_hides_memory_is_ended_and_its_neighbour_is_not(
    guarded: ContainerRuntime, name: str
) -> None:
    script = _HOARD.format(times=_TIMES.get(name, 100), hoard=_HOARDS[name])
    async with machine(guarded) as (_, neighbour), machine(guarded, LITTLE) as (running, inside):
        await inside.start(f"python3 - <<'EOF'\n{script}\nEOF")
        await readable(running.pidfd)
        assert (await neighbour.run("echo alive")).stdout == "alive\n"


@pytest.mark.usefixtures("short")
async def test_what_a_cgroup_counts_ends_nobody(guarded: ContainerRuntime) -> None:
    busy = "import socket; s = [socket.socketpair() for _ in range(1000)]; [a.send(bytes(20000)) for a, _ in s]"
    async with machine(guarded) as (_, inside):
        assert (await inside.run(f"python3 -c '{busy}'; sleep 2; echo alive")).stdout == "alive\n"


def test_the_less_memory_is_left_the_sooner_is_the_next_look() -> None:
    looks = [uncounted.pause(headroom << 20) for headroom in (1, 1 << 10, 1 << 12, 1 << 24)]
    assert looks == sorted(looks)
    assert looks[0] < 0.1
    assert looks[-1] == 1.0


def test_the_host_is_short_long_before_it_has_nothing_left() -> None:
    memory = uncounted.HostMemory()
    try:
        assert 0 < memory.headroom() < 1 << 50
    finally:
        memory.close()
