"""The port of the store for what starts runs by itself. The rules of interface.py hold here too.

That a run is made, and that its tick or its events are done with, is one transaction: nothing starts twice, and nothing is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from dormice.domain.automation import CatchUp, Schedule, Tick, TickOutcome, Trigger
from dormice.domain.execution import Micros
from dormice.domain.run import Event, Run
from dormice.store.projects import Queue
from dormice.store.workflows import NewRun


class NewSchedule(Struct, frozen=True, kw_only=True):
    """A schedule as it is asked for; project, workflow and key tell whether it is there already."""

    id: str
    """Of a new one."""
    project_id: str
    workflow_id: str
    key: str
    cron: str
    timezone: str
    catch_up: CatchUp | None
    """None: as it is, `none` for a new one."""
    overlap: bool | None
    """None: as it is, False for a new one."""
    next_run_at: Micros | None
    """Of a new one, or of one that ticks otherwise now."""
    deployment_id: str
    """Whose queue is made: it has no limit if a schedule of the workflow may overlap, else 1."""
    now: Micros


class StoredSchedule(Struct, frozen=True, kw_only=True):
    """The schedule as it is, and the queue of its runs."""

    schedule: Schedule
    queue: Queue


class NewTick(Struct, frozen=True, kw_only=True):
    """A moment of a schedule: with a run to be made, or why there is none."""

    at: Micros
    outcome: TickOutcome
    run: NewRun | None = None


class Ticked(Struct, frozen=True, kw_only=True):
    """What became of ticks: nothing (no `ticks`), if the schedule is another one by now."""

    schedule: Schedule | None
    """As it is; None when there is none any more."""
    ticks: Sequence[Tick] = ()
    changed: Sequence[Run] = ()


class ScheduleStore(Protocol):
    """Schedules and their ticks."""

    async def put(self, new: NewSchedule) -> StoredSchedule:
        """Record a schedule or change it. One that ticks as before keeps its next tick, and a paused one stays paused."""
        ...

    async def all(self) -> list[Schedule]:
        """Return the schedules of all projects, in the order in which they were made."""
        ...

    async def tick(
        self, schedule: Schedule, ticks: Sequence[NewTick], *, next_run_at: Micros | None, now: Micros
    ) -> Ticked:
        """Make the runs of ticks and go on to the next one, if the schedule is still of this revision.

        A tick that is known already does nothing. If the schedule may not overlap and a run of it is open, no run is made.
        """
        ...

    async def pause(self, project_id: str, schedule_id: str, *, now: Micros) -> Schedule | None:
        """Let it tick no more. Returns it as it is then; None: there is none."""
        ...

    async def resume(
        self, project_id: str, schedule_id: str, *, next_run_at: Micros | None, now: Micros
    ) -> Schedule | None:
        """Let it tick again, from that moment on; one that is not paused stays as it is."""
        ...

    async def delete(self, project_id: str, schedule_id: str) -> bool:
        """Forget a schedule and its ticks; its runs go on. Returns whether there was one."""
        ...

    async def ticks(self, schedule: Schedule, *, before: Micros | None, limit: int) -> list[Tick]:
        """Return the latest ticks first, earlier than `before`. The last 200 are kept, and those whose runs are open."""
        ...


class NewTrigger(Struct, frozen=True, kw_only=True):
    """A trigger as it is asked for; project, workflow and topic tell whether it is there already."""

    id: str
    """Of a new one."""
    project_id: str
    workflow_id: str
    topic: str
    deployment_id: str
    queue_name: str
    batch_size: int
    batch_timeout_seconds: int | None
    now: Micros


class Pending(Struct, frozen=True, kw_only=True):
    """Events that a trigger has made no run for."""

    events: Sequence[Event]
    more: bool
    """Whether there are others behind them."""


class Fired(Struct, frozen=True, kw_only=True):
    """The trigger as it is (None: there is none any more), and the runs; none, if it was another one by then."""

    trigger: Trigger | None
    changed: Sequence[Run] = ()


class TriggerStore(Protocol):
    """Triggers and how far they have come."""

    async def put(self, new: NewTrigger) -> Trigger:
        """Record a trigger or change it. A new one begins after the last event of the topic, another one goes on where it is."""
        ...

    async def all(self) -> list[Trigger]:
        """Return the triggers of all projects, in the order in which they were made."""
        ...

    async def pending(self, trigger: Trigger, *, limit: int, most_bytes: int) -> Pending:
        """Return the next events of its topic: at most so many, and no more bytes, but for the first."""
        ...

    async def fire(self, trigger: Trigger, runs: Sequence[NewRun], *, cursor: int) -> Fired:
        """Make runs and move the cursor, if the trigger is still of this revision."""
        ...

    async def delete(self, project_id: str, trigger_id: str) -> bool:
        """Forget a trigger. Returns whether there was one."""
        ...


class AutomationStore(Protocol):
    """The part of the store that starts runs by itself."""

    @property
    def schedules(self) -> ScheduleStore:
        """Schedules."""
        ...

    @property
    def triggers(self) -> TriggerStore:
        """Triggers."""
        ...
