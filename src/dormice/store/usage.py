"""The port of the store for usage: what machines have used, and for how long they had their disks; and who may be given more memory.

What machines use is told as sums since the start of a boot. The store counts what a sum has grown by since it was told last, in one
transaction with remembering it, so nothing is counted twice, whoever says it how often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from dormice.domain.execution import Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class BootUse:
    """What a boot has used so far, and the size that its machine had since this was told last."""

    organization_id: str
    machine_id: str
    machine: int
    """The machine's number."""
    boot_id: UUID
    at: Micros
    awake_us: int
    cpu_us: int
    vcpu: float
    memory_mib: int
    storage_gib: int

    @property
    def size(self) -> tuple[float, int, int]:
        """What the machine had meanwhile."""
        return self.vcpu, self.memory_mib, self.storage_gib


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeUse:
    """What a machine of one size has used in one hour or day that begins at `start`."""

    start: Micros
    machine_id: str
    vcpu: float
    memory_mib: int
    storage_gib: int
    awake_us: int
    cpu_us: int
    windows: int
    """How many reports are in it."""
    last_window_end: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSpan:
    """A machine had a disk of that size from `since` to `until` (None: it has it still)."""

    machine_id: str
    since: Micros
    until: Micros | None
    storage_gib: int


class UsageStore(Protocol):
    """Usage of organizations."""

    async def count(self, uses: Sequence[BootUse]) -> None:
        """Count what these boots have used beyond what was counted of them. Of one machine an earlier boot comes first.

        The growth is spread evenly over the time awake that it is about, hour by hour. A sum that is lower than the one before
        counts nothing.
        """
        ...

    async def compute(
        self, organization_id: str, *, start: Micros, end: Micros, machine_id: str | None, by_day: bool, limit: int
    ) -> list[ComputeUse]:
        """Return the use in hours that begin at start <= hour < end, ascending, at most `limit` rows."""
        ...

    async def storage(
        self, organization_id: str, *, start: Micros, end: Micros, machine_id: str | None, limit: int
    ) -> list[StorageSpan]:
        """Return the spans that reach into start <= moment < end, by machine and time, at most `limit`."""
        ...

    async def forget(self, before: Micros) -> int:
        """Delete what is wholly of before that moment, a bounded number of rows; return how many."""
        ...


class AutoresizingStore(Protocol):
    """Whether machines of an organization may be given more memory by themselves."""

    async def policy(self, organization_id: str) -> bool:
        """True if nobody has said otherwise."""
        ...

    async def set_policy(self, organization_id: str, *, enabled: bool) -> None:
        """Say so."""
        ...
