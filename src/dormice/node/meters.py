"""What a boot of a machine has used, and whether it is short of memory: read from its cgroups and its process 1.

Figures of use grow from the start of a boot to its end, whoever asks and whatever node asked before: nothing here remembers anything.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dormice.node import records
from dormice.node.records import ProcessIdentity
from dormice.node.runtime import MachineSpec, Memory


@dataclass(frozen=True, slots=True)
class CgroupMeter:
    """Of a boot that has a cgroup2 directory of its own, and one of the memory controller, which may be the same."""

    process: ProcessIdentity
    spec: MachineSpec
    unified: Path
    memory_directory: Path
    on_v1: bool

    def used(self) -> tuple[int, int]:
        # cgroup2 counts processor time on every host, also where a v1 hierarchy has the controller.
        return records.age_us(self.process), figures(f"{self.unified}/cpu.stat")["usage_usec"]

    def memory(self, *, above: float) -> Memory | None:
        limit = self.spec.memory_mib << 20
        used = int(_read(f"{self.memory_directory}/memory.{'usage_in_bytes' if self.on_v1 else 'current'}"))
        if used <= limit * above:
            return None
        counted = figures(f"{self.memory_directory}/memory.stat")
        prefix = "total_" if self.on_v1 else ""  # of the children too
        pages = ("inactive_file", "active_file", "slab_reclaimable")
        return Memory(used, sum(counted.get(prefix + name, 0) for name in pages), limit)


@dataclass(frozen=True, slots=True)
class ProcessMeter:
    """Of a boot that is a plain process. Without a cgroup its processor time is not known, and told as 0."""

    process: ProcessIdentity
    spec: MachineSpec
    cgroup: Path | None

    def used(self) -> tuple[int, int]:
        cpu_us = 0 if self.cgroup is None else figures(f"{self.cgroup}/cpu.stat")["usage_usec"]
        return records.age_us(self.process), cpu_us

    def memory(self, *, above: float) -> Memory | None:
        """Nothing limits it."""
        del above
        return None


def figures(file: str) -> dict[str, int]:
    """Return what a file of a cgroup counts, by name. Raises OSError."""
    pairs = (line.split() for line in _read(file).decode().splitlines())
    return {name: int(value) for name, value in pairs}


def _read(file: str) -> bytes:
    """A file of a cgroup, which is short. This is done for every machine each second, and a Path takes three times as long."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)
