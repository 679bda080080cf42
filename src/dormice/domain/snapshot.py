"""A snapshot: a copy of a machine's disk that nothing changes, its states, and how they follow one another.

Rules for editing: as in execution.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dormice.domain.execution import Micros
from dormice.domain.transitions import follow


class SnapshotState(StrEnum):
    """Where a snapshot is."""

    CREATING = "creating"  # recorded; the node has yet to say that it is on its disk
    READY = "ready"
    FAILED = "failed"  # could not be made; there is nothing on the node
    DELETING = "deleting"
    DELETED = "deleted"  # nothing is left, not even the record


class SnapshotEvent(StrEnum):
    """What can happen to a snapshot."""

    TAKEN = "taken"
    FAILED = "failed"
    DELETE = "delete"
    DELETED = "deleted"


_S, _E = SnapshotState, SnapshotEvent

TRANSITIONS: Mapping[SnapshotState, Mapping[SnapshotEvent, SnapshotState]] = {
    _S.CREATING: {_E.TAKEN: _S.READY, _E.FAILED: _S.FAILED, _E.DELETE: _S.DELETING},
    _S.READY: {_E.DELETE: _S.DELETING},
    _S.FAILED: {_E.DELETE: _S.DELETING},
    _S.DELETING: {_E.DELETED: _S.DELETED},
    _S.DELETED: {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One snapshot as the store knows it. It is its organization's, and outlives its machine."""

    number: int
    """The store's own ordinal: orders lists and cursors."""
    id: str
    organization_id: str
    machine_id: str
    """The machine whose disk was copied."""
    name: str
    """What its maker calls it; may be empty, need not be unique."""
    state: SnapshotState
    storage_gib: int
    """The size of the disk: what is made from it has at least that."""
    image: str
    """What the disk was made on; a machine made from it has the very same files below it."""
    created_at: Micros
    bytes: int = 0
    """What it takes up on the node's disk, once it is ready."""
    error: str | None = None
    """Why it failed."""

    def on(self, event: SnapshotEvent) -> SnapshotState:
        """Return the state that `event` leads to. Raises IllegalTransition."""
        return follow(TRANSITIONS, self.state, event)
