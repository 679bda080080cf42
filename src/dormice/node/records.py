"""What the node must find again after it was killed: one record per machine that was started, in the run directory.

A record without a process is an intent: a start was under way. A record of before the host's last boot names no process.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from uuid import UUID

import msgspec

from dormice.node.runtime import MachineSpec


class ProcessIdentity(msgspec.Struct, frozen=True):
    """A process that no later one with the same pid can be mistaken for."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: clock ticks after the host's boot."""
    host_boot: str


def age_us(process: ProcessIdentity) -> int:
    """How many microseconds ago the process began, however often the node was started again or the clock set since."""
    began = process.start_ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")
    return max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000 - began)


class Record(msgspec.Struct, frozen=True):
    boot_id: UUID
    uid_base: int
    spec: MachineSpec
    environment: dict[str, str]
    process: ProcessIdentity | None = None


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a live process; None when there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return ProcessIdentity(pid, int(fields[19]), Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def open_process(process: ProcessIdentity | None) -> int | None:
    """A pidfd of the process; None when there is none, or it lives no more. Raises OSError."""
    if process is None:
        return None
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    # Only after the pidfd is open can the pid no longer change its owner.
    if identify(process.pid) == process:
        return pidfd
    os.close(pidfd)
    return None


def write(file: Path, record: Record) -> None:
    """Replace the record; a reader sees the old one or the new one. No fsync: machines end with the host anyway."""
    new = file.with_suffix(".new")
    data = msgspec.json.encode(record)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(new))
    finally:
        os.close(fd)
    new.rename(file)


def read(file: Path) -> Record | None:
    """The record, or None when there is none that can be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
