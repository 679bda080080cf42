"""Schedules: their next ticks are on the agenda, and each tick and its run are one transaction.

All schedules are in memory; a tick that the memory is wrong about is refused by the store, which tells what is right.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec

from dormice.domain.automation import CatchUp, Schedule, ScheduleStatus, Tick, TickOutcome
from dormice.domain.cron import Cron
from dormice.domain.errors import Invalid, NotFound
from dormice.domain.execution import Micros
from dormice.domain.moments import rfc3339
from dormice.domain.run import Json
from dormice.engine.clock import Clock, new_id
from dormice.engine.runs.agenda import Agenda
from dormice.engine.runs.automatic import AutomaticRuns
from dormice.engine.runs.orders import ScheduleOrder
from dormice.engine.runs.policy import RunPolicy
from dormice.engine.runs.registry import Registry
from dormice.engine.tasks import Tasks
from dormice.store.automation import NewSchedule, NewTick, ScheduleStore
from dormice.store.projects import Project

log = logging.getLogger(__name__)

CLOCK_LOOKED_AT_US = 60_000_000
CLOCK_SET_US = 5_000
"""The host's clock and the steady one went apart by so much: ticks are due at other moments of the steady one."""
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Known:
    schedule: Schedule
    cron: Cron | None
    """None: what the schedule says means nothing any more, since a time zone may be gone after an update of the host."""


class Schedules:
    """Raises NotFound, Invalid, StoreUnavailable."""

    def __init__(
        self,
        *,
        store: ScheduleStore,
        registry: Registry,
        runs: AutomaticRuns,
        agenda: Agenda,
        tasks: Tasks,
        clock: Clock,
        policy: RunPolicy,
    ) -> None:
        self._store = store
        self._registry = registry
        self._runs = runs
        self._agenda = agenda
        self._tasks = tasks
        self._clock = clock
        self._policy = policy
        self._known: dict[str, _Known] = {}
        self._of: dict[str, dict[str, dict[str, str]]] = {}
        """Ids by project, workflow and key."""
        self._offset: Micros = 0

    async def load(self) -> None:
        """Rebuild memory from the store."""
        for schedule in await self._store.all():
            self._know(schedule)
        await self._look_at_clock()

    # What clients may ask

    async def put(self, project: Project, order: ScheduleOrder) -> Schedule:
        """Record a schedule, or change the one with this workflow and key. What the order leaves open stays as it is."""
        return await self._tasks.finish(self._put(project, order))

    async def _put(self, project: Project, order: ScheduleOrder) -> Schedule:
        now = self._clock.now()
        cron = Cron(order.cron, order.timezone, now=now)
        offered = self._registry.newest(project.id, order.workflow_id, scheduled=True)
        if offered is None:
            raise Invalid(
                "no worker has registered a workflow of this id as a scheduled one: register it with scheduled: true",
                location="body.workflow_id",
                status=400,
            )
        self._check_room(project, order)
        await self._check_payload(project, order, offered.deployment_id, cron.next(now) or now)
        new = NewSchedule(
            id=new_id(self._clock),
            project_id=project.id,
            workflow_id=order.workflow_id,
            key=order.key,
            cron=order.cron,
            timezone=order.timezone,
            catch_up=order.catch_up,
            overlap=order.overlap,
            next_run_at=cron.next(now),
            deployment_id=offered.deployment_id,
            now=now,
        )
        stored = await self._store.put(new)
        self._runs.set_queue(stored.queue)
        self._know(stored.schedule)
        return stored.schedule

    def _check_room(self, project: Project, order: ScheduleOrder) -> None:
        most, own = self._policy.schedules_per_project, self._of.get(project.id, {})
        if order.key not in own.get(order.workflow_id, {}) and sum(map(len, own.values())) >= most:
            raise Invalid(f"a project may have at most {most} schedules: delete some", location="body.key", status=400)

    async def _check_payload(self, project: Project, order: ScheduleOrder, deployment_id: str, at: Micros) -> None:
        """Raise Invalid if the workflow does not take what the next tick gives it."""
        identity = self._of.get(project.id, {}).get(order.workflow_id, {}).get(order.key)
        last = None if identity is None else self._known[identity].schedule.last_run_at
        payload = _payload(identity or new_id(self._clock), order.key, order.timezone, at, last, at)
        fault = await self._runs.fault(project.id, order.workflow_id, deployment_id, payload)
        if fault is not None:
            words = f"its ticks would fail: what a schedule gives a run is the tick (timestamp, timezone, key, ...): {fault}"
            raise Invalid(words, location="body.workflow_id", status=400)

    def find(self, project: Project, schedule_id: str) -> Schedule:
        """Return a schedule of the project. Raises NotFound."""
        known = self._known.get(schedule_id)
        if known is None or known.schedule.project_id != project.id:
            raise NotFound("no such schedule")
        return known.schedule

    def workflows(self, project: Project) -> list[str]:
        """Return the workflows of the project that have schedules."""
        return sorted(self._of.get(project.id, {}))

    def all(self, project: Project, workflow_id: str | None = None) -> list[Schedule]:
        """Return the schedules of the project, or of one workflow of it, in the order in which they were made."""
        own = self._of.get(project.id, {})
        wanted = own.values() if workflow_id is None else [own.get(workflow_id, {})]
        return [self._known[identity].schedule for identity in sorted(one for ids in wanted for one in ids.values())]

    def upcoming(self, schedule: Schedule, count: int) -> list[Micros]:
        """Return the next ticks of a schedule; none while it is paused."""
        known = self._known.get(schedule.id)
        if known is None or known.cron is None or schedule.status is ScheduleStatus.PAUSED or not count:
            return []
        if schedule.next_run_at is None:
            return []
        ticks = known.cron.after(schedule.next_run_at)
        return [schedule.next_run_at, *(tick for _, tick in zip(range(count - 1), ticks, strict=False))]

    async def ticks(self, project: Project, schedule_id: str, *, before: Micros | None, limit: int) -> list[Tick]:
        """Return what became of the last ticks, the latest first, earlier than `before`."""
        return await self._store.ticks(self.find(project, schedule_id), before=before, limit=limit)

    async def pause(self, project: Project, schedule_id: str) -> Schedule:
        """Let a schedule tick no more."""
        return await self._tasks.finish(self._pause(self.find(project, schedule_id)))

    async def _pause(self, schedule: Schedule) -> Schedule:
        return self._changed(await self._store.pause(schedule.project_id, schedule.id, now=self._clock.now()), schedule)

    async def resume(self, project: Project, schedule_id: str) -> Schedule:
        """Let a schedule tick again, from now on: what it has not ticked meanwhile is not caught up."""
        return await self._tasks.finish(self._resume(self.find(project, schedule_id)))

    async def _resume(self, schedule: Schedule) -> Schedule:
        now = self._clock.now()
        next_run_at = Cron(schedule.cron, schedule.timezone, now=now).next(now)
        resumed = await self._store.resume(schedule.project_id, schedule.id, next_run_at=next_run_at, now=now)
        return self._changed(resumed, schedule)

    async def delete(self, project: Project, schedule_id: str) -> None:
        """Forget a schedule; its runs go on."""
        await self._tasks.finish(self._delete(self.find(project, schedule_id)))

    async def _delete(self, schedule: Schedule) -> None:
        await self._store.delete(schedule.project_id, schedule.id)
        self._forget(schedule)

    # Ticks

    async def _tick(self, schedule_id: str) -> None:
        known = self._known.get(schedule_id)
        if known is None or known.cron is None or known.schedule.next_run_at is None:
            return
        schedule, since, now = known.schedule, known.schedule.next_run_at, self._clock.now()
        if now < since:  # the host's clock was put back
            self._arm(known)
            return
        ticks = await self._due(schedule, known.cron, since, now)
        done = await self._store.tick(schedule, ticks, next_run_at=known.cron.next(now), now=now)
        self._runs.made([tick.run for tick in ticks if tick.run is not None], done.changed)
        for tick in done.ticks:
            if tick.outcome is not TickOutcome.RUN:
                log.info("schedule %s: the tick of %s is %s", schedule.id, rfc3339(tick.at), tick.outcome.value)
        if done.schedule is None:
            self._forget(schedule)
        elif schedule.id in self._known:
            self._know(done.schedule)

    async def _due(self, schedule: Schedule, cron: Cron, since: Micros, now: Micros) -> list[NewTick]:
        """Return what is to become of the ticks since then, in their order."""
        due = cron.latest(since, now, self._policy.caught_up_ticks)
        match schedule.catch_up:
            case CatchUp.NONE:
                wanted = {tick for tick in due if now - tick <= self._policy.late_tick_ms * 1000}
            case CatchUp.ONE:
                wanted = set(due[-1:])
            case CatchUp.ALL:
                wanted = set(due)
        offered = self._registry.newest(schedule.project_id, schedule.workflow_id, scheduled=True)
        last, ticks = schedule.last_run_at, []
        for at in due:
            if at not in wanted:
                ticks.append(NewTick(at=at, outcome=TickOutcome.MISSED))
            elif offered is None:
                ticks.append(NewTick(at=at, outcome=TickOutcome.UNSERVED))
            else:
                run = await self._runs.new(
                    schedule.project_id,
                    schedule.workflow_id,
                    offered.deployment_id,
                    _payload(schedule.id, schedule.key, schedule.timezone, at, last, cron.next(at)),
                    queue_name=schedule.workflow_id,
                    queue_limit=self._queue_limit(schedule, offered.deployment_id),
                    concurrency_key=schedule.key,
                )
                ticks.append(NewTick(at=at, outcome=TickOutcome.RUN, run=run))
                last = at
        return ticks

    def _queue_limit(self, schedule: Schedule, deployment_id: str) -> int | None:
        """Return the limit that the queue is made with, if it has to be made."""
        if self._runs.knows_queue(schedule.project_id, deployment_id, schedule.workflow_id):
            return 1
        ids = self._of[schedule.project_id][schedule.workflow_id]
        return None if any(self._known[identity].schedule.overlap for identity in ids.values()) else 1

    # Memory

    def _changed(self, schedule: Schedule | None, before: Schedule) -> Schedule:
        if schedule is None:
            self._forget(before)
            raise NotFound("no such schedule")
        self._know(schedule)
        return schedule

    def _know(self, schedule: Schedule) -> None:
        before = self._known.get(schedule.id)
        if before is not None and before.schedule.revision >= schedule.revision:
            return
        same = before is not None and (before.schedule.cron, before.schedule.timezone) == (
            schedule.cron,
            schedule.timezone,
        )
        known = _Known(schedule, before.cron if before is not None and same else self._read(schedule))
        self._known[schedule.id] = known
        self._of.setdefault(schedule.project_id, {}).setdefault(schedule.workflow_id, {})[schedule.key] = schedule.id
        self._arm(known)

    def _read(self, schedule: Schedule) -> Cron | None:
        try:
            return Cron(schedule.cron, schedule.timezone, now=self._clock.now())
        except Invalid as error:
            log.error("schedule %s cannot tick any more: %s", schedule.id, error.message)  # noqa: TRY400 - it says all
            return None

    def _forget(self, schedule: Schedule) -> None:
        self._agenda.drop(("schedule", schedule.id))
        if self._known.pop(schedule.id, None) is not None:
            own = self._of[schedule.project_id]
            del own[schedule.workflow_id][schedule.key]
            if not own[schedule.workflow_id]:
                del own[schedule.workflow_id]

    def _arm(self, known: _Known) -> None:
        schedule, key = known.schedule, ("schedule", known.schedule.id)
        if schedule.next_run_at is None or known.cron is None or schedule.status is ScheduleStatus.PAUSED:
            self._agenda.drop(key)
        else:
            due = self._clock.steady() + schedule.next_run_at - self._clock.now()
            self._agenda.put(due, key, lambda: self._tick(schedule.id))

    async def _look_at_clock(self) -> None:
        """Put all ticks anew on the agenda if the host's clock was set, or the host was suspended."""
        offset = self._clock.now() - self._clock.steady()
        if abs(offset - self._offset) > CLOCK_SET_US:
            self._offset = offset
            for known in self._known.values():
                self._arm(known)
        self._agenda.put(self._clock.steady() + CLOCK_LOOKED_AT_US, "clock of schedules", self._look_at_clock)


def _payload(
    schedule_id: str, key: str, timezone: str, at: Micros, last: Micros | None, upcoming: Micros | None
) -> Json:
    return _encode(
        {
            "timestamp": rfc3339(at),
            "last_timestamp": None if last is None else rfc3339(last),
            "timezone": timezone,
            "schedule_id": schedule_id,
            "key": key,
            "upcoming": None if upcoming is None else rfc3339(upcoming),
        }
    )
