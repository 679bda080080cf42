"""What a boot of a machine has used, and whether it is short of memory: read from its cgroups and its process 1.

Figures of use grow from the start of a boot to its end, whoever asks and whatever node asked before: nothing here remembers anything.
"""

from __future__ import annotations

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
        return records.age_us(self.process), _figures(self.unified / "cpu.stat")["usage_usec"]

    def memory(self, *, above: float) -> Memory | None:
        names = ("usage_in_bytes", "limit_in_bytes") if self.on_v1 else ("current", "max")
        used, limit = (int((self.memory_directory / f"memory.{name}").read_text()) for name in names)
        if used <= limit * above:
            return None
        figures = _figures(self.memory_directory / "memory.stat")
        prefix = "total_" if self.on_v1 else ""  # of the children too
        pages = ("inactive_file", "active_file", "slab_reclaimable")
        return Memory(used, sum(figures.get(prefix + name, 0) for name in pages), limit)


@dataclass(frozen=True, slots=True)
class ProcessMeter:
    """Of a boot that is a plain process. Without a cgroup its processor time is not known, and told as 0."""

    process: ProcessIdentity
    spec: MachineSpec
    cgroup: Path | None

    def used(self) -> tuple[int, int]:
        cpu_us = 0 if self.cgroup is None else _figures(self.cgroup / "cpu.stat")["usage_usec"]
        return records.age_us(self.process), cpu_us

    def memory(self, *, above: float) -> Memory | None:
        """Nothing limits it."""
        del above
        return None


def _figures(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in file.read_text().splitlines())
    return {name: int(value) for name, value in pairs}
