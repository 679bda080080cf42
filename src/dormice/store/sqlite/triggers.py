"""Triggers: every method of the port, each one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import apsw

from dormice.domain.automation import Trigger
from dormice.domain.run import Event
from dormice.store.automation import Fired, NewTrigger, Pending
from dormice.store.sqlite import run_rows, run_submits, statements
from dormice.store.sqlite.reader import SHORT_BYTES, SHORT_ROWS, Reader
from dormice.store.sqlite.writer import Writer
from dormice.store.workflows import NewRun

_SQL = statements.load("triggers.sql")
_EVENTS = statements.load("events.sql")
_SHORT_RUNS = 8


class SqliteTriggers:
    """TriggerStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def put(self, new: NewTrigger) -> Trigger:
        values = (
            new.id,
            new.project_id,
            new.workflow_id,
            new.topic,
            new.deployment_id,
            new.queue_name,
            new.batch_size,
            new.batch_timeout_seconds,
            new.now,
        )
        return _trigger(await self._writer.run(lambda db: db.execute(_SQL["put"], values).get, short=True))

    async def all(self) -> list[Trigger]:
        return [_trigger(row) for row in await self._reader.scan(lambda db: db.execute(_SQL["all"]).fetchall())]

    async def pending(self, trigger: Trigger, *, limit: int, most_bytes: int) -> Pending:
        query = partial(_pending, trigger=trigger, limit=limit, most_bytes=most_bytes)
        return await self._reader.read(query, short=limit <= SHORT_ROWS and most_bytes <= SHORT_BYTES)

    async def fire(self, trigger: Trigger, runs: Sequence[NewRun], *, cursor: int) -> Fired:
        short = len(runs) <= _SHORT_RUNS and sum(len(new.payload) for new in runs) <= SHORT_BYTES
        return await self._writer.run(partial(_fire, trigger=trigger, runs=runs, cursor=cursor), short=short)

    async def delete(self, project_id: str, trigger_id: str) -> bool:
        found = await self._writer.run(lambda db: db.execute(_SQL["delete"], (project_id, trigger_id)).get)
        return found is not None


def _pending(db: apsw.Connection, trigger: Trigger, limit: int, most_bytes: int) -> Pending:
    values = (trigger.project_id, trigger.topic, trigger.cursor, -1, limit + 1)
    found: list[Event] = []
    size = 0
    for row in db.execute(_EVENTS["after"], values):
        event = run_rows.event(row)
        size += len(event.data)
        if len(found) == limit or (found and size > most_bytes):
            return Pending(events=found, more=True)
        found.append(event)
    return Pending(events=found, more=False)


def _fire(db: apsw.Connection, trigger: Trigger, runs: Sequence[NewRun], cursor: int) -> Fired:
    row = db.execute(_SQL["load"], (trigger.id,)).get
    if row is None:
        return Fired(trigger=None)
    current = _trigger(row)
    if current.revision != trigger.revision:
        return Fired(trigger=current)
    changed = [run_submits.insert(db, new) for new in runs]
    return Fired(trigger=_trigger(db.execute(_SQL["go_on"], (trigger.id, cursor)).get), changed=changed)


def _trigger(row: Any) -> Trigger:
    return Trigger(
        id=row[0],
        project_id=row[1],
        workflow_id=row[2],
        topic=row[3],
        deployment_id=row[4],
        queue_name=row[5],
        batch_size=row[6],
        batch_timeout_seconds=row[7],
        revision=row[8],
        cursor=row[9],
        created_at=row[10],
        updated_at=row[11],
    )
