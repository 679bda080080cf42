"""(5) What a machine costs that does nothing."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures import Result
from bench.stack import Stack, stack
from bench.wire import Connection
from bench.workbench import Workbench

TITLE = "(5) memory of an idle machine"
SETTLE_SECONDS = 3.0


def run(bench: Workbench) -> Result:
    count = bench.amount(100, 20)
    result = Result("idle-memory", f"{TITLE}, over {count} machines")
    falls: list[float] = []
    shares: list[float] = []
    with _room(count) as data_dir, stack("idle", data_dir=data_dir) as idle, idle.connect() as connection:
        idle.delete_machine(connection, _make(idle, connection))
        for _ in range(bench.amount(3, 1)):
            before = _available()
            machines = [_make(idle, connection) for _ in range(count)]
            falls.append((before - _available()) / count)
            shares += [sum(map(pss_kib, _processes(pid))) for pid in idle.guests()]
            for machine in machines:
                idle.delete_machine(connection, machine)
    pss = result.add("PSS of all that is inside: process 1 and its spare", "KiB", shares)
    fall = result.add("fall of MemAvailable, per machine", "KiB", falls)
    result.bound("PSS", pss.median / 1024, 1, unit="MiB")
    result.bound("fall of MemAvailable", fall.median / 1024, 3, unit="MiB")
    return result


def _make(idle: Stack, connection: Connection) -> str:
    return idle.create_machine(connection, vcpu=0.25, memory_mib=64)


def _available() -> int:
    """Return KiB, once dirty pages are written and the pool is filled."""
    time.sleep(SETTLE_SECONDS)
    subprocess.run(["sync"], check=True)
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    raise RuntimeError("no MemAvailable")


def _processes(guest: int) -> list[int]:
    children = Path(f"/proc/{guest}/task/{guest}/children").read_text().split()
    return [guest, *map(int, children)]


def pss_kib(pid: int) -> int:
    """Return the proportional share of memory of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


@contextmanager
def _room(count: int) -> Iterator[Path]:
    """A data directory on a sparse file system: so many disks could not be promised on every host."""
    with tempfile.TemporaryDirectory(prefix="dormice-bench-room-") as text:
        directory = Path(text)
        image, mount = directory / "image", directory / "mount"
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate((2 * count + 20) << 30)
        subprocess.run(
            ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(image)], check=True
        )
        subprocess.run(["mount", "-o", "loop,noinit_itable", str(image), str(mount)], check=True)
        try:
            yield mount / "data"
        finally:
            subprocess.run(["umount", str(mount)], check=True)
