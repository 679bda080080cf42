"""Events: published in one transaction with the runs that they resume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import apsw
from msgspec.structs import replace

from dormice.domain.execution import Micros
from dormice.domain.run import Event, WaitKind
from dormice.store.sqlite import questions, run_rows, run_waits, statements
from dormice.store.sqlite.reader import SHORT_BYTES, SHORT_ROWS, Reader
from dormice.store.sqlite.run_unit import RunUnit
from dormice.store.sqlite.writer import Writer
from dormice.store.workflows import NewEvent, Publication, Published, Question, Told

_SQL = statements.load("events.sql")
_WAITS = statements.load("waits.sql")
_SHORT_EVENTS = 8


class SqliteEvents:
    """EventStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def publish(self, project_id: str, topic: str, events: Sequence[NewEvent], *, now: Micros) -> Published:
        short = len(events) <= _SHORT_EVENTS and sum(len(event.data) for event in events) <= SHORT_BYTES
        operation = partial(publish, project_id=project_id, topic=topic, events=events, now=now)
        return await self._writer.run(operation, short=short)

    async def page(
        self, project_id: str, topic: str, *, after: int, since: Micros | None, limit: int, newest_first: bool = False
    ) -> list[Event]:
        sql = _SQL["newest" if newest_first else "after"]
        values = (project_id, topic, after, -1 if since is None else since, limit)
        found = await self._reader.read(lambda db: db.execute(sql, values).fetchall(), short=limit <= SHORT_ROWS)
        return [run_rows.event(row) for row in found]

    async def question(self, project_id: str, topic: str, step_key: str, run_id: str | None) -> Question:
        return await self._reader.scan(lambda db: questions.find(db, project_id, topic, step_key, run_id))

    async def answer(
        self, project_id: str, topic: str, step_key: str, run_id: str | None, event: NewEvent, *, now: Micros
    ) -> Published | Question:
        def operation(db: apsw.Connection) -> Published | Question:
            found = questions.find(db, project_id, topic, step_key, run_id)
            if not found.pending:
                return found
            return publish(db, project_id, topic, [replace(event, for_run=found.run_id)], now)

        return await self._writer.run(operation)

    async def questions(self, project_id: str, topic: str, *, limit: int) -> list[Event]:
        rows = await self._reader.scan(lambda db: db.execute(_SQL["questions"], (project_id, topic, limit)).fetchall())
        return sorted(map(run_rows.event, rows), key=lambda event: event.sequence)


def publish(db: apsw.Connection, project_id: str, topic: str, events: Sequence[NewEvent], now: Micros) -> Published:
    """Record events and give them to those who wait."""
    unit = RunUnit(db, now)
    made, ended = _publish(unit, project_id, topic, events)
    told = Told(topics=[topic] * len(made), ended=ended)
    return Published(events=made, changed=unit.changed, told=told)


def publish_with(unit: RunUnit, project_id: str, publications: Sequence[Publication]) -> Told | None:
    """Publish in the transaction of a change of a run; None when there is nothing to publish."""
    if not publications:
        return None
    ended: list[tuple[str, str]] = []
    for publication in publications:
        ended += _publish(unit, project_id, publication.topic, [publication.event])[1]
    return Told(topics=[publication.topic for publication in publications], ended=ended)


def _publish(
    unit: RunUnit, project_id: str, topic: str, events: Sequence[NewEvent]
) -> tuple[list[Event], list[tuple[str, str]]]:
    made = [_insert(unit.db, project_id, topic, event, unit.now) for event in events]
    waiting: list[Any] = unit.db.execute(_WAITS["for_topic"], (topic, project_id)).fetchall()
    waiting.sort(key=itemgetter(5))  # the longest first
    ended = []
    given: Counter[str] = Counter()
    for run_id, step_key, kind, wanted, together, _ in waiting:
        if kind == WaitKind.EVENT:
            fitting = made[given[run_id] :] if together else made
        else:
            fitting = [event for event, new in zip(made, events, strict=True) if _answers(new, wanted, run_id)]
        run = unit.load(run_id) if fitting else None
        if run is not None and not run.closed:
            # Of one request a foreign worker is given the last event (contract, section 2.7). Of ours, each wait is given one.
            run_waits.deliver(unit, run, step_key, fitting[0 if together else -1])
            given[run_id] += kind == WaitKind.EVENT
            ended.append((run_id, step_key))
    return made, ended


def _answers(new: NewEvent, wanted: str, run_id: str) -> bool:
    return new.event_type == wanted and new.for_run in (None, run_id)


def _insert(db: apsw.Connection, project_id: str, topic: str, new: NewEvent, now: Micros) -> Event:
    values = (new.id, project_id, topic, new.event_type, new.data, new.run_id, new.attempt_number, now)
    sequence = db.execute(_SQL["insert"], values).get
    if new.for_run is not None:
        db.execute(_SQL["address"], (sequence, new.for_run))
    return Event(
        sequence=sequence,
        id=new.id,
        topic=topic,
        event_type=new.event_type,
        data=new.data,
        created_at=now,
        run_id=new.run_id,
        attempt_number=new.attempt_number,
    )
