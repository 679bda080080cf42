"""The port of the store for snapshots. The rules are those of `interface.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dormice.domain.execution import Micros
from dormice.domain.snapshot import Snapshot, SnapshotEvent
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSnapshot:
    """What `SnapshotStore.create` needs; it enters state `creating`."""

    id: str
    organization_id: str
    machine_id: str
    name: str
    storage_gib: int
    image: str
    now: Micros
    most_of_machine: int
    most_of_organization: int


@dataclass(frozen=True, slots=True)
class TooManySnapshots:
    """The bound that the new one would exceed; nothing was recorded."""

    limit: str
    most: int


@dataclass(frozen=True, slots=True)
class SnapshotLostRace:
    """The snapshot is not in a state that allows the event; nothing was changed. `current` is the row, None when there is none."""

    current: Snapshot | None


class SnapshotStore(Protocol):
    """Snapshots."""

    async def create(
        self, new: NewSnapshot, claim: IdempotencyClaim | None
    ) -> Snapshot | Replayed | KeyReused | TooManySnapshots:
        """Record a snapshot, within the bounds given."""
        ...

    async def get(self, organization_id: str, snapshot_id: str) -> Snapshot | None:
        """Return a snapshot of the organization."""
        ...

    async def page(
        self, organization_id: str, machine_id: str | None, *, before: int | None, limit: int
    ) -> list[Snapshot]:
        """Newest first, numbers below `before`; of one machine, or of all that there are or were."""
        ...

    async def unsettled(self) -> list[Snapshot]:
        """Every snapshot of every organization that the node still has to make or delete, oldest first."""
        ...

    async def advance(
        self, snapshot_id: str, event: SnapshotEvent, *, size: int | None = None, error: str | None = None
    ) -> Snapshot | SnapshotLostRace:
        """Move the state by `event`, if the present one allows it; a deleted one leaves no record. `size` in bytes."""
        ...
