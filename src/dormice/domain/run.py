"""A run: one durable workflow function, its states and how they follow one another.

Rules for editing: every state and every legal event is in TRANSITIONS and nowhere else; a state word is wire format (contract
`workflows-api`, section 2.1) and never changes; a terminal state has no way out; the SQL CHECK of every store adapter equals this
table (tests/store compares them).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec
from msgspec import Struct

from dormice.domain.execution import Micros
from dormice.domain.moments import rfc3339
from dormice.domain.transitions import follow

Json = bytes
"""A JSON document as it came; kept and given back byte for byte."""
NULL: Json = b"null"


class RunState(StrEnum):
    """The eight states that a client sees."""

    QUEUED = "queued"  # waits for a worker, for room in its queue, or for the moment of its next attempt
    CLAIMED = "claimed"  # given to a worker that has not yet said that it took it
    RUNNING = "running"  # a worker runs it
    WAITING = "waiting"  # waits for time, an event, other runs or a command; holds no worker
    PENDING_CANCEL = "pending_cancel"  # its end was asked for, and what runs of it has not yet ended
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})
HELD = frozenset({RunState.CLAIMED, RunState.RUNNING})
"""A worker has it: it takes one of the worker's slots and a place of its queue's limit."""


class RunEvent(StrEnum):
    """What can happen to a run."""

    CLAIMED = "claimed"
    ACCEPTED = "accepted"
    RELEASED = "released"  # back into the queue: the worker did not take it, gave it up, or is gone
    WAITED = "waited"
    RESUMED = "resumed"
    RETRIED = "retried"  # an attempt failed, and there will be another one
    COMPLETED = "completed"
    FAILED = "failed"
    CANCEL_REQUESTED = "cancel_requested"
    CANCELLED = "cancelled"


_S, _E = RunState, RunEvent

TRANSITIONS: Mapping[RunState, Mapping[RunEvent, RunState]] = {
    _S.QUEUED: {
        _E.CLAIMED: _S.CLAIMED,
        _E.FAILED: _S.FAILED,
        _E.CANCELLED: _S.CANCELLED,
    },
    _S.CLAIMED: {
        _E.ACCEPTED: _S.RUNNING,
        _E.RELEASED: _S.QUEUED,
        _E.WAITED: _S.WAITING,
        _E.RETRIED: _S.QUEUED,
        _E.COMPLETED: _S.COMPLETED,
        _E.FAILED: _S.FAILED,
        _E.CANCEL_REQUESTED: _S.PENDING_CANCEL,
        _E.CANCELLED: _S.CANCELLED,
    },
    _S.RUNNING: {
        _E.RELEASED: _S.QUEUED,
        _E.WAITED: _S.WAITING,
        _E.RETRIED: _S.QUEUED,
        _E.COMPLETED: _S.COMPLETED,
        _E.FAILED: _S.FAILED,
        _E.CANCEL_REQUESTED: _S.PENDING_CANCEL,
        _E.CANCELLED: _S.CANCELLED,
    },
    # A worker may end what waits: one branch of it waits, and another one has failed or finished.
    _S.WAITING: {
        _E.RESUMED: _S.QUEUED,
        _E.RETRIED: _S.QUEUED,
        _E.COMPLETED: _S.COMPLETED,
        _E.FAILED: _S.FAILED,
        _E.CANCEL_REQUESTED: _S.PENDING_CANCEL,
        _E.CANCELLED: _S.CANCELLED,
    },
    _S.PENDING_CANCEL: {
        _E.CANCELLED: _S.CANCELLED,
    },
    _S.COMPLETED: {},
    _S.FAILED: {},
    _S.CANCELLED: {},
}


class CancelledBy(StrEnum):
    """Who ended a run that was cancelled."""

    MANUAL = "manual"  # a request, of it or of a run above it
    TIMEOUT = "timeout"  # it ran longer than its run_timeout_seconds


class WaitKind(StrEnum):
    """What a run waits for."""

    TIME = "time"
    EVENT = "event"
    SUSPEND = "suspend"
    RUN = "subworkflow"
    BATCH = "batch"
    EXECUTION = "execution"


class Run(Struct, frozen=True, kw_only=True):
    """One run as the store knows it, without its JSON documents."""

    number: int
    """The store's own ordinal: grows with every run, orders lists and queues."""
    id: str
    project_id: str
    workflow_id: str
    state: RunState
    revision: int
    """Grows with every change of this record: of two copies the greater one is the newer one."""
    created_at: Micros
    deployment_id: str
    queue_name: str
    concurrency_key: str | None = None
    priority: int = 0
    """Greater goes first within a queue."""
    not_before: Micros = 0
    """While queued: the moment before which no worker gets it, by the steady clock."""
    started_at: Micros | None = None
    """When a worker first took it."""
    running_since: Micros | None = None
    """When a worker last took it, by the steady clock: run_timeout_seconds counts from here."""
    completed_at: Micros | None = None
    worker_id: str | None = None
    """Who has it, or had it last."""
    fence: int = 0
    """Grows with every claim."""
    parent_id: str | None = None
    root_id: str | None = None
    root_workflow_id: str | None = None
    step_key: str | None = None
    batch_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    retry_count: int = 0
    """Attempts that failed."""
    max_retries: int = 2
    crashes: int = 0
    """Attempts that ended because their worker was lost or gave up."""
    error: str | None = None
    cancelled_at: Micros | None = None
    cancelled_by: CancelledBy | None = None
    run_timeout_seconds: int | None = None

    @property
    def terminal(self) -> bool:
        """Whether it has ended."""
        return self.state in TERMINAL

    @property
    def closed(self) -> bool:
        """Whether it has ended, or its end was asked for: nothing is begun or done for it any more."""
        return self.terminal or self.state is RunState.PENDING_CANCEL

    @property
    def topic(self) -> str:
        """The topic on which a run, and all below it, publish their events."""
        return f"workflow/{self.root_workflow_id or self.workflow_id}/{self.root_id or self.id}"

    def on(self, *events: RunEvent) -> RunState:
        """Return the state that events, one after the other, lead to. Raises IllegalTransition."""
        state = self.state
        for event in events:
            state = follow(TRANSITIONS, state, event)
        return state


class Step(Struct, frozen=True, kw_only=True):
    """What is known of one step of a run; a step that is here is never run again."""

    step_key: str
    outputs: Json = NULL
    error: Json | None = None
    success: bool = True
    source_run_id: str | None = None
    """The run whose result this is."""
    output_schema_name: str | None = None
    completed_at: Micros = 0


class Event(Struct, frozen=True, kw_only=True):
    """One published event."""

    sequence: int
    """Grows with every event, and is given in the order of the commits: who has seen one has seen all before it."""
    id: str
    topic: str
    event_type: str | None
    data: Json
    created_at: Micros
    run_id: str | None = None
    attempt_number: int | None = None

    def document(self) -> Json:
        """Return the event as clients see it."""
        return msgspec.json.encode(
            {
                "id": self.id,
                "sequence_id": self.sequence,
                "topic": self.topic,
                "event_type": self.event_type,
                "data": msgspec.Raw(self.data),
                "created_at": rfc3339(self.created_at),
            }
        )
