"""What starts runs by itself: schedules at moments, triggers at events."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from dormice.domain.execution import Micros


class CatchUp(StrEnum):
    """What becomes of ticks whose moment passed while nobody was there to take them."""

    NONE = "none"  # nothing
    ONE = "one"  # one run, for the last of them
    ALL = "all"  # a run for each of the last ones


class ScheduleStatus(StrEnum):
    """Whether a schedule ticks."""

    ACTIVE = "active"
    PAUSED = "paused"


class TickOutcome(StrEnum):
    """What became of a tick."""

    RUN = "run"  # its run was made
    SKIPPED = "skipped"  # a run of the schedule was still open
    MISSED = "missed"  # it was too late for it
    UNSERVED = "unserved"  # no deployment offers the workflow as a scheduled one


class Schedule(Struct, frozen=True, kw_only=True):
    """Runs of a workflow at the moments that a cron expression names."""

    id: str
    project_id: str
    workflow_id: str
    key: str
    """Tells schedules of one workflow apart; the concurrency key of their runs."""
    cron: str
    timezone: str
    catch_up: CatchUp
    overlap: bool
    """Whether a tick makes a run while an earlier one is open."""
    status: ScheduleStatus
    revision: int
    next_run_at: Micros | None
    """The first tick that nothing has become of yet."""
    last_run_at: Micros | None = None
    """The last tick that made a run."""
    last_skipped_at: Micros | None = None
    """The last tick that made none, for whatever reason."""
    created_at: Micros
    updated_at: Micros


class Tick(Struct, frozen=True, kw_only=True):
    """What became of one moment of a schedule."""

    at: Micros
    outcome: TickOutcome
    run_id: str | None = None
    """The run that it made; of a skipped one, the run that was open."""
    decided_at: Micros


class Trigger(Struct, frozen=True, kw_only=True):
    """Runs of a workflow for the events of a topic."""

    id: str
    project_id: str
    workflow_id: str
    topic: str
    deployment_id: str
    queue_name: str
    batch_size: int
    batch_timeout_seconds: int | None
    revision: int
    cursor: int
    """The sequence of the last event that a run was made for."""
    created_at: Micros
    updated_at: Micros

    @property
    def batched(self) -> bool:
        """Whether its runs are given lists of events, and not one event each."""
        return self.batch_size > 1 or self.batch_timeout_seconds is not None
