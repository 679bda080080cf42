"""A machine: its phases, what may be desired of it, and how the phases follow one another.

Rules for editing: as in execution.py. Words are wire format (contract section 2.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from dormice.domain.egress import PUBLIC, Egress
from dormice.domain.execution import Micros
from dormice.domain.transitions import follow


class DesiredState(StrEnum):
    """What the owner last asked for."""

    RUNNING = "running"
    SLEEPING = "sleeping"
    DESTROYED = "destroyed"


class Phase(StrEnum):
    """Where the machine is."""

    ACCEPTED = "accepted"  # recorded, nothing done yet
    PLACEMENT_PENDING = "placement_pending"  # no node to run it on just now
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    SLEEPING = "sleeping"  # no process; the disk is kept
    DESTROYING = "destroying"
    DESTROYED = "destroyed"
    FAILED = "failed"  # could not be started; `last_error` says why


class MachineEvent(StrEnum):
    """What can happen to a machine."""

    NO_NODE = "no_node"
    START = "start"
    STARTED = "started"
    START_FAILED = "start_failed"
    STOP = "stop"
    STOPPED = "stopped"
    DIED = "died"
    DESTROY = "destroy"
    DESTROYED = "destroyed"


class ResizeState(StrEnum):
    """What became of the last change of a machine's memory."""

    STABLE = "stable"
    ERROR = "error"  # the node could not apply it
    PENDING_CAPACITY = "pending_capacity"  # the machine is short, and the host has nothing to give


_P, _E = Phase, MachineEvent

TRANSITIONS: Mapping[Phase, Mapping[MachineEvent, Phase]] = {
    _P.ACCEPTED: {
        _E.START: _P.STARTING,
        _E.NO_NODE: _P.PLACEMENT_PENDING,
        _E.STOPPED: _P.SLEEPING,  # there was nothing to stop
        _E.DESTROY: _P.DESTROYING,
    },
    _P.PLACEMENT_PENDING: {_E.START: _P.STARTING, _E.STOPPED: _P.SLEEPING, _E.DESTROY: _P.DESTROYING},
    _P.STARTING: {
        _E.STARTED: _P.RUNNING,
        _E.START_FAILED: _P.FAILED,
        _E.DIED: _P.SLEEPING,
        _E.STOP: _P.STOPPING,
        _E.DESTROY: _P.DESTROYING,
    },
    _P.RUNNING: {_E.STOP: _P.STOPPING, _E.DIED: _P.SLEEPING, _E.DESTROY: _P.DESTROYING},
    _P.STOPPING: {
        _E.STOPPED: _P.SLEEPING,
        _E.DIED: _P.SLEEPING,
        _E.DESTROY: _P.DESTROYING,
    },
    _P.SLEEPING: {_E.START: _P.STARTING, _E.NO_NODE: _P.PLACEMENT_PENDING, _E.DESTROY: _P.DESTROYING},
    _P.FAILED: {_E.START: _P.STARTING, _E.NO_NODE: _P.PLACEMENT_PENDING, _E.DESTROY: _P.DESTROYING},
    _P.DESTROYING: {_E.DESTROYED: _P.DESTROYED},
    _P.DESTROYED: {},
}
GOING = frozenset({Phase.DESTROYING, Phase.DESTROYED})
"""Those of a machine that is deleted, or is being."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine as the store knows it."""

    number: int
    """The store's own ordinal: orders lists and cursors."""
    id: str
    organization_id: str
    vcpu: float
    memory_mib: int
    storage_gib: int
    image: str
    autosleep_seconds: int
    """Idle seconds until it is put to sleep; 0 = never."""
    desired_state: DesiredState
    phase: Phase
    reason: str
    """A PascalCase word for the present phase, `DesiredStateReached` when there is nothing to do."""
    retryable: bool
    revision: int
    """Grows with every change."""
    created_at: Micros
    last_transition_at: Micros
    last_progress_at: Micros
    last_activity_at: Micros
    """What autosleep counts from."""
    boot_id: UUID | None = None
    """The present boot, or the last one; a new one at every start."""
    last_error: str | None = None
    egress: Egress = PUBLIC
    origin: str | None = None
    """The snapshot, or the machine, whose disk its disk is a copy of."""
    copied: bool = True
    """Whether the disk is its own: until then its origin must stay."""
    autoresizing: bool = False
    """Whether its memory may be raised when it is short."""
    unapplied_from_mib: int | None = None
    """The memory that the present boot has, where that is not `memory_mib` yet."""
    enlarging: bool = False
    """`memory_mib` was raised because the machine was short, and the node has not applied it yet."""
    autoresized_at: Micros | None = None
    """When its memory was last raised because it was short, and the node had applied it."""
    resize_state: ResizeState = ResizeState.STABLE

    @property
    def assigned_mib(self) -> int | None:
        """The memory that its processes may use now; None while there are none."""
        if self.phase is not Phase.RUNNING:
            return None
        return self.memory_mib if self.unapplied_from_mib is None else self.unapplied_from_mib

    def on(self, event: MachineEvent) -> Phase:
        """Return the phase that `event` leads to. Raises IllegalTransition."""
        return follow(TRANSITIONS, self.phase, event)
