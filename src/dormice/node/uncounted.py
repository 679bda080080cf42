"""Memory of the host that a machine holds and no cgroup counts.

The kernel charges a machine's cgroup for nearly everything that its processes make. Not for these: what waits at a netlink or ping
socket, errors and time stamps at any socket, and a datagram of which a part is still to come. One socket can hold some megabytes
(`net.core.rmem_max`), and a machine of 256 MiB can open a hundred thousand. Nothing in the kernel bounds their sum, so the node
looks, the sooner the less memory the host has left, and closely only once it is short of it.

Not counted and not seen here: locks on files, 192 bytes each. Making them takes a processor's whole time for 40 MiB in a second.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import select
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Never

from dormice.node import netlink, syscalls

_log = logging.getLogger(__name__)
_FASTEST = (2 << 30) * (os.cpu_count() or 1)
"""Bytes per second, more than half as much again as one processor was measured to hide."""
_SOONEST, _LATEST = 0.02, 1.0
LOW_SHARE, LOWEST, HIGHEST = 1 / 16, 256 << 20, 2 << 30
"""The host is short of memory when less than this share of it is available, within these bounds."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A machine: its process 1, and the memory it was promised, in bytes."""

    machine_id: str
    pid: int
    pidfd: int
    """Of the same process, and the suspect's own: whoever takes the suspect closes it."""
    promised: int


async def guard(suspects: Callable[[], list[Suspect]]) -> Never:
    """While the host is short of memory, kill machines that hold more of it in sockets than they were promised. Ends when cancelled."""
    memory = HostMemory()
    try:
        while True:
            headroom, found = memory.headroom(), False
            if headroom < 0:
                try:
                    found = await asyncio.to_thread(_kill_hoarders, suspects())
                except OSError as error:  # no descriptors, for the moment
                    _log.warning("the host is short of memory, and nobody can be looked at: %s", error)
            await asyncio.sleep(pause(headroom) if headroom >= 0 or found else _LATEST)
    finally:
        memory.close()


def _kill_hoarders(suspects: list[Suspect]) -> bool:
    """Whether there were any."""
    try:
        return bool([suspect for suspect in by_sockets(suspects) if _kill_if_hoarder(suspect)])
    finally:
        for suspect in suspects:
            os.close(suspect.pidfd)


def _kill_if_hoarder(suspect: Suspect) -> bool:
    try:
        waiting = held(suspect)
        # While its pidfd says that process 1 lives, the pid was nobody else's.
        if waiting <= suspect.promised or _died(suspect.pidfd):
            return False
        signal.pidfd_send_signal(suspect.pidfd, signal.SIGKILL)  # and with it all that it is process 1 of
    except OSError as error:
        _log.warning("what %s holds in sockets cannot be told: %s", suspect.machine_id, error)
        return False
    sizes = waiting >> 20, suspect.promised >> 20
    _log.warning(
        "the host is short of memory: killed %s, which held %d MiB in sockets and was promised %d",
        suspect.machine_id,
        *sizes,
    )
    return True


def _died(pidfd: int) -> bool:
    poll = select.poll()  # not select(), which knows no fd above 1023
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


class HostMemory:
    """How much memory the host has left."""

    def __init__(self) -> None:
        self._meminfo = os.open("/proc/meminfo", os.O_RDONLY | os.O_CLOEXEC)

    def headroom(self) -> int:
        """Bytes that the host has left until it is short of memory; below zero when it is."""
        said = os.pread(self._meminfo, 4096, 0)
        total, available = (_kib(said, name) << 10 for name in (b"MemTotal", b"MemAvailable"))
        return available - int(min(max(total * LOW_SHARE, LOWEST), HIGHEST))

    def close(self) -> None:
        os.close(self._meminfo)


def _kib(meminfo: bytes, name: bytes) -> int:
    found = re.search(rb"^%s: +(\d+) kB" % name, meminfo, re.MULTILINE)
    assert found  # noqa: S101 - in every kernel
    return int(found[1])


def pause(headroom: int) -> float:
    """Seconds after which to look again: well before the fastest hog could have used up the headroom."""
    return min(max(headroom / _FASTEST / 2, _SOONEST), _LATEST)


def held(suspect: Suspect) -> int:
    """The bytes that wait in the machine's sockets. Blocking. Raises OSError, as when process 1 has died meanwhile."""
    with ThreadPoolExecutor(max_workers=1) as throw_away:  # a thread cannot be trusted to come back
        return throw_away.submit(_waiting_in_sockets, suspect.pid).result()


def by_sockets(suspects: Iterable[Suspect]) -> list[Suspect]:
    """Those with most sockets first: they are found fast, and looking closely at one takes milliseconds. Dead ones are left out."""
    counted = [(_sockets(suspect.pid), suspect) for suspect in suspects]
    return [suspect for count, suspect in sorted(counted, key=lambda pair: -pair[0]) if count >= 0]


def _sockets(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/net/sockstat").read_text().split()[2])
    except OSError:
        return -1


def _waiting_in_sockets(pid: int) -> int:
    with Path(f"/proc/{pid}/ns/net").open("rb") as namespace:
        syscalls.setns(namespace.fileno(), syscalls.CLONE_NEWNET)
    total = netlink.waiting_in_inet_sockets()
    for line in _table("netlink"):
        total += int(line[4]) + int(line[5])
    for name in ("icmp", "icmp6"):
        for line in _table(name):
            sending, _, received = line[4].partition(":")
            total += int(sending, 16) + int(received, 16)
    return total


def _table(name: str) -> list[list[str]]:
    file = Path("/proc/thread-self/net", name)
    return [line.split() for line in file.read_text().splitlines()[1:]] if file.exists() else []
