"""Bodies of schedules and event triggers (contract `workflows-api`, sections 1.5 and 1.6). The later half of each record is our own."""

from __future__ import annotations

from msgspec import Struct

from dormice.api.workflows.wire import time
from dormice.domain.automation import Schedule, ScheduleStatus, Tick, TickOutcome, Trigger
from dormice.domain.moments import rfc3339


class ScheduleRequest(Struct, kw_only=True):
    """A schedule to be made, or to be changed: workflow and key tell which."""

    workflow_id: str
    cron: str
    timezone: str
    key: str
    catch_up: str | None = None
    """`none`, `one` or `all`: what becomes of ticks that were missed. Absent: as it is; `none` for a new one."""
    overlap: bool | None = None
    """Whether a tick makes a run while an earlier one is open. Absent: as it is; false for a new one."""


class ScheduleStored(Struct, kw_only=True):
    """A schedule's id."""

    schedule_id: str


class ScheduleRecord(Struct, kw_only=True):
    """A schedule."""

    id: str
    workflow_id: str
    cron: str
    timezone: str
    key: str
    status: str
    last_run_at: str | None
    """The last tick that made a run."""
    next_run_at: str | None
    created_at: str
    updated_at: str
    catch_up: str
    overlap: bool
    last_skipped_at: str | None
    """The last tick that made none."""
    upcoming: list[str]
    """The next ticks, as many as were asked for."""


class ScheduleList(Struct, kw_only=True):
    """Schedules, in the order in which they were made."""

    schedules: list[ScheduleRecord]


class SchedulePage(Struct, kw_only=True):
    """Schedules, in the order in which they were made; `next_cursor` is null at the end."""

    schedules: list[ScheduleRecord]
    next_cursor: str | None


class ScheduledWorkflows(Struct, kw_only=True):
    """The workflows that have schedules."""

    workflow_ids: list[str]


class TickRecord(Struct, kw_only=True):
    """What became of a tick."""

    scheduled_at: str
    outcome: str
    """`run`, `skipped` (a run was open), `missed` (it was too late), `unserved` (no deployment has the workflow as a scheduled one)."""
    execution_id: str | None
    """The run that it made."""
    blocked_by: str | None
    """Of a skipped one: the run that was open."""
    decided_at: str


class TickList(Struct, kw_only=True):
    """The latest ticks first."""

    ticks: list[TickRecord]


class TriggerRequest(Struct, kw_only=True):
    """A trigger to be made, or to be changed: workflow and topic tell which."""

    workflow_id: str
    deployment_id: str
    event_topic: str
    batch_size: int
    batch_timeout_seconds: int | None = None
    queue_name: str | None = None


class TriggerRecord(Struct, kw_only=True):
    """A trigger."""

    id: str
    workflow_id: str
    deployment_id: str
    event_topic: str
    batch_size: int
    batch_timeout_seconds: int | None
    queue_name: str
    last_sequence_id: int
    """The last event that a run was made for."""
    active: bool
    """Whether the workflow was last registered by this deployment; if not, events stay where they are."""
    created_at: str
    updated_at: str


class TriggerList(Struct, kw_only=True):
    """Triggers, in the order in which they were made."""

    event_triggers: list[TriggerRecord]


def schedule(found: Schedule, upcoming: list[int]) -> ScheduleRecord:
    """Return a schedule as clients see it."""
    paused = found.status is ScheduleStatus.PAUSED
    return ScheduleRecord(
        id=found.id,
        workflow_id=found.workflow_id,
        cron=found.cron,
        timezone=found.timezone,
        key=found.key,
        status=found.status.value,
        last_run_at=time(found.last_run_at),
        next_run_at=None if paused else time(found.next_run_at),
        created_at=rfc3339(found.created_at),
        updated_at=rfc3339(found.updated_at),
        catch_up=found.catch_up.value,
        overlap=found.overlap,
        last_skipped_at=time(found.last_skipped_at),
        upcoming=[rfc3339(moment) for moment in upcoming],
    )


def tick(found: Tick) -> TickRecord:
    """Return a tick as clients see it."""
    ran = found.outcome is TickOutcome.RUN
    return TickRecord(
        scheduled_at=rfc3339(found.at),
        outcome=found.outcome.value,
        execution_id=found.run_id if ran else None,
        blocked_by=None if ran else found.run_id,
        decided_at=rfc3339(found.decided_at),
    )


def trigger(found: Trigger, *, active: bool) -> TriggerRecord:
    """Return a trigger as clients see it."""
    return TriggerRecord(
        id=found.id,
        workflow_id=found.workflow_id,
        deployment_id=found.deployment_id,
        event_topic=found.topic,
        batch_size=found.batch_size,
        batch_timeout_seconds=found.batch_timeout_seconds,
        queue_name=found.queue_name,
        last_sequence_id=found.cursor,
        active=active,
        created_at=rfc3339(found.created_at),
        updated_at=rfc3339(found.updated_at),
    )
