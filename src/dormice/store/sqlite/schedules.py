"""Schedules: every method of the port, each one transaction."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import apsw

from dormice.domain.automation import CatchUp, Schedule, ScheduleStatus, Tick, TickOutcome
from dormice.domain.execution import Micros
from dormice.domain.run import Run
from dormice.store.automation import NewSchedule, NewTick, StoredSchedule, Ticked
from dormice.store.projects import Queue
from dormice.store.sqlite import run_submits, statements
from dormice.store.sqlite.reader import SHORT_ROWS, Reader
from dormice.store.sqlite.writer import Writer

_SQL = statements.load("schedules.sql")
_PROJECTS = statements.load("projects.sql")
KEPT_TICKS = 200
_SHORT_TICKS = 8


class SqliteSchedules:
    """ScheduleStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def put(self, new: NewSchedule) -> StoredSchedule:
        return await self._writer.run(partial(_put, new=new), short=True)

    async def all(self) -> list[Schedule]:
        return [_schedule(row) for row in await self._reader.scan(lambda db: db.execute(_SQL["all"]).fetchall())]

    async def tick(
        self, schedule: Schedule, ticks: Sequence[NewTick], *, next_run_at: Micros | None, now: Micros
    ) -> Ticked:
        operation = partial(_tick, schedule=schedule, news=ticks, next_run_at=next_run_at, now=now)
        return await self._writer.run(operation, short=len(ticks) <= _SHORT_TICKS)

    async def pause(self, project_id: str, schedule_id: str, *, now: Micros) -> Schedule | None:
        return await self._change("pause", (project_id, schedule_id, now))

    async def resume(
        self, project_id: str, schedule_id: str, *, next_run_at: Micros | None, now: Micros
    ) -> Schedule | None:
        return await self._change("resume", (project_id, schedule_id, now, next_run_at))

    async def delete(self, project_id: str, schedule_id: str) -> bool:
        found = await self._writer.run(lambda db: db.execute(_SQL["delete"], (project_id, schedule_id)).get)
        return found is not None

    async def ticks(self, schedule: Schedule, *, before: Micros | None, limit: int) -> list[Tick]:
        values = (schedule.id, sys.maxsize if before is None else before, limit)
        rows: list[Any] = await self._reader.read(
            lambda db: db.execute(_SQL["ticks"], values).fetchall(), short=limit <= SHORT_ROWS
        )
        return [
            Tick(at=at, outcome=TickOutcome(outcome), run_id=run_id, decided_at=decided_at)
            for at, outcome, run_id, decided_at in rows
        ]

    async def _change(self, name: str, values: tuple[Any, ...]) -> Schedule | None:
        row = await self._writer.run(lambda db: db.execute(_SQL[name], values).get, short=True)
        return None if row is None else _schedule(row)


def _put(db: apsw.Connection, new: NewSchedule) -> StoredSchedule:
    values = (
        new.id,
        new.project_id,
        new.workflow_id,
        new.key,
        new.cron,
        new.timezone,
        new.catch_up and new.catch_up.value,
        new.overlap,
        new.next_run_at,
        new.now,
    )
    schedule = _schedule(db.execute(_SQL["put"], values).get)
    overlaps = db.execute(_SQL["overlaps"], (new.project_id, new.workflow_id)).get is not None
    queue = Queue(
        project_id=new.project_id,
        deployment_id=new.deployment_id,
        name=new.workflow_id,
        concurrency_limit=None if overlaps else 1,
    )
    db.execute(_PROJECTS["set_queue"], (queue.project_id, queue.deployment_id, queue.name, queue.concurrency_limit))
    return StoredSchedule(schedule=schedule, queue=queue)


def _tick(
    db: apsw.Connection, schedule: Schedule, news: Sequence[NewTick], next_run_at: Micros | None, now: Micros
) -> Ticked:
    row = db.execute(_SQL["load"], (schedule.id,)).get
    if row is None:
        return Ticked(schedule=None)
    current = _schedule(row)
    if current.revision != schedule.revision or current.status is ScheduleStatus.PAUSED:
        return Ticked(schedule=current)
    open_run = _open_run(db, schedule.id)
    in_the_way = None if schedule.overlap else open_run
    ticks: list[Tick] = []
    changed: list[Run] = []
    for new in news:
        tick = _decide(new, in_the_way, now)
        values = (schedule.id, tick.at, tick.outcome.value, tick.run_id, tick.outcome is TickOutcome.RUN, now)
        db.execute(_SQL["insert_tick"], values)
        if not db.changes():  # the host's clock was put back, and this moment comes again
            continue
        ticks.append(tick)
        if new.run is not None and tick.outcome is TickOutcome.RUN:
            changed.append(run_submits.insert(db, new.run))
    db.execute(_SQL["prune_ticks"], (schedule.id, KEPT_TICKS))
    last_run = max((tick.at for tick in ticks if tick.outcome is TickOutcome.RUN), default=None)
    last_skipped = max((tick.at for tick in ticks if tick.outcome is not TickOutcome.RUN), default=None)
    gone_on = _schedule(db.execute(_SQL["go_on"], (schedule.id, next_run_at, last_run, last_skipped)).get)
    return Ticked(schedule=gone_on, ticks=ticks, changed=changed)


def _open_run(db: apsw.Connection, schedule_id: str) -> str | None:
    """Return the oldest run of a schedule that is open."""
    found = None
    rows: list[Any] = db.execute(_SQL["open_ticks"], (schedule_id,)).fetchall()
    for at, run_id, is_open in rows:
        if not is_open:
            db.execute(_SQL["close_tick"], (schedule_id, at))
        elif found is None:
            found = run_id
    return found


def _decide(new: NewTick, in_the_way: str | None, now: Micros) -> Tick:
    if new.run is None:
        return Tick(at=new.at, outcome=new.outcome, decided_at=now)
    if in_the_way is not None:
        return Tick(at=new.at, outcome=TickOutcome.SKIPPED, run_id=in_the_way, decided_at=now)
    return Tick(at=new.at, outcome=TickOutcome.RUN, run_id=new.run.id, decided_at=now)


def _schedule(row: Any) -> Schedule:
    return Schedule(
        id=row[0],
        project_id=row[1],
        workflow_id=row[2],
        key=row[3],
        cron=row[4],
        timezone=row[5],
        catch_up=CatchUp(row[6]),
        overlap=bool(row[7]),
        status=ScheduleStatus(row[8]),
        revision=row[9],
        next_run_at=row[10],
        last_run_at=row[11],
        last_skipped_at=row[12],
        created_at=row[13],
        updated_at=row[14],
    )
