"""Lists of runs: one index leads, chosen by the filter that leaves the fewest, and the rest is looked at run by run."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import apsw

from dormice.domain.execution import Micros
from dormice.domain.run import TERMINAL, Run
from dormice.store.lists import RunDocuments, RunFilter, RunPage
from dormice.store.sqlite import run_rows, statements
from dormice.store.sqlite.reader import Reader

_SQL = statements.load("run_lists.sql")

MOST_LOOKED_AT = 5_000
"""Runs that are looked at for one page: some 25 ms of work."""
CLOCK_SLACK_US = 300 * 1_000_000
"""Numbers grow with time, unless the host's clock is put back. A list that a time bounds hides no run for so much of it."""


class SqliteRunLists:
    """RunListStore on SQLite."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def page(
        self, project_id: str, which: RunFilter, *, before: int | None, limit: int, most: int | None = None
    ) -> RunPage:
        most = MOST_LOOKED_AT if most is None else most
        return await self._reader.scan(
            partial(_page, project_id=project_id, which=which, before=before, limit=limit, most=most)
        )

    async def documents(self, runs: Sequence[Run], *, most_bytes: int) -> list[RunDocuments]:
        return await self._reader.scan(lambda db: [_documents(db, run, most_bytes) for run in runs])

    async def roots_of_session(self, project_id: str, session_id: str) -> int:
        values = (project_id, session_id)
        return int(await self._reader.scan(lambda db: db.execute(_SQL["roots_of_session"], values).get))


def _page(db: apsw.Connection, project_id: str, which: RunFilter, before: int | None, limit: int, most: int) -> RunPage:
    start = sys.maxsize if before is None else before
    if which.until is not None:
        start = min(start, _first_from(db, which.until + CLOCK_SLACK_US))
    oldest = None if which.since is None else which.since - CLOCK_SLACK_US
    found: list[Run] = []
    for looked_at, run in enumerate(_led(db, project_id, which, start), 1):
        if oldest is not None and run.created_at < oldest:
            break
        if which.has(run):
            if len(found) == limit:
                return RunPage(runs=found, before=found[-1].number)
            found.append(run)
        if looked_at == most:
            return RunPage(runs=found, before=run.number)
    return RunPage(runs=found, before=None)


def _led(db: apsw.Connection, project_id: str, which: RunFilter, start: int) -> Iterator[Run]:
    """Yield what the leading filter leaves, the newest first."""
    cursors = [db.execute(_SQL[name], (project_id, start, value)) for name, value in _leads(which)]
    for row in heapq.merge(*cursors, key=lambda row: -row[0]):
        yield run_rows.run(row)


def _leads(which: RunFilter) -> list[tuple[str, str | None]]:
    """Return the queries whose rows together have all that is asked for, none of them twice."""
    if which.batch_id is not None:
        return [("of_batch", which.batch_id)]
    if which.parent_id is not None:
        return [("of_parent", which.parent_id)]
    if which.session_id is not None:
        return [("of_session", which.session_id)]
    if which.user_id is not None:
        return [("of_user", which.user_id)]
    if which.queue_name is not None:
        return [("of_workflow", which.queue_name), ("of_queue", which.queue_name)]
    if which.workflow_ids is not None:
        return [("of_workflow", workflow_id) for workflow_id in which.workflow_ids]
    if which.states is not None:
        ended: list[tuple[str, str | None]] = [("ended", state.value) for state in which.states & TERMINAL]
        return [*ended, ("open", None)] if which.states - TERMINAL else ended
    return [("all", None)]


def _first_from(db: apsw.Connection, moment: Micros) -> int:
    """The number of the first run that was made at a moment or later."""
    digits = f"{max(moment, 0) // 1000:012x}"
    number: Any = db.execute(_SQL["first_from"], (f"{digits[:8]}-{digits[8:12]}",)).get
    return sys.maxsize if number is None else number


def _documents(db: apsw.Connection, run: Run, most_bytes: int) -> RunDocuments:
    row: Any = db.execute(_SQL["documents"], (run.number, most_bytes)).fetchone()
    payload, result, omitted = row or (None, None, 0)
    return RunDocuments(payload=payload, result=result, omitted=bool(omitted))
