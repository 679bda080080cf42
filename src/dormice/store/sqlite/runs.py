"""Runs: every method of the port, each one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any

import apsw

from dormice.domain.execution import Micros
from dormice.domain.run import CancelledBy, Json, Run, RunEvent, RunState, Step, WaitKind
from dormice.store.interface import IdempotencyClaim, KeyReused, NewExecution, Replayed
from dormice.store.sealing import Sealer
from dormice.store.sqlite import (
    events,
    executions,
    run_commands,
    run_ends,
    run_rows,
    run_submits,
    run_suspends,
    run_waits,
    statements,
)
from dormice.store.sqlite.reader import SHORT_BYTES, SHORT_ROWS, Reader
from dormice.store.sqlite.run_unit import RunUnit
from dormice.store.sqlite.writer import Writer
from dormice.store.workflows import (
    Attempt,
    Command,
    CommandBegun,
    Due,
    Moved,
    NewRun,
    NewWait,
    OpenWait,
    ParentWait,
    Publication,
    Refused,
    RunInput,
    RunResult,
    Submitted,
    Suspended,
    Waited,
)

_SQL = statements.load("runs.sql")
_WAITS = statements.load("waits.sql")
_COMMANDS = statements.load("run_commands.sql")
_SHORT_RUNS = 8


class SqliteRuns:
    """RunStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader, sealer: Sealer) -> None:
        self._writer = writer
        self._reader = reader
        self._sealer = sealer

    async def submit(
        self, runs: Sequence[NewRun], wait: ParentWait | None, claim: IdempotencyClaim | None
    ) -> Submitted | Replayed | KeyReused | Refused:
        short = len(runs) <= _SHORT_RUNS and sum(len(new.payload) for new in runs) <= SHORT_BYTES
        return await self._writer.run(partial(run_submits.submit, runs=runs, wait=wait, claim=claim), short=short)

    async def get(self, project_id: str, run_id: str) -> Run | None:
        row = self._reader.point(lambda db: db.execute(_SQL["get"], (project_id, run_id)).get)
        return None if row is None else run_rows.run(row)

    async def find(self, run_id: str) -> Run | None:
        row = self._reader.point(lambda db: db.execute(_SQL["load"], (run_id,)).get)
        return None if row is None else run_rows.run(row)

    async def rerun(
        self, source: Run, new: NewRun, from_step: str | None, claim: IdempotencyClaim | None
    ) -> Submitted | Replayed | KeyReused | Refused:
        return await self._writer.run(
            partial(run_submits.rerun, source=source, new=new, from_step=from_step, claim=claim)
        )

    async def open(self) -> list[Run]:
        return await self._reader.scan(lambda db: [run_rows.run(row) for row in db.execute(_SQL["open"])])

    async def dues(self) -> list[Due]:
        found: list[Any] = await self._reader.scan(lambda db: db.execute(_WAITS["dues"]).fetchall())
        return [Due(run_id=run_id, step_key=key, due_at=due_at) for run_id, key, due_at in found]

    async def open_waits(self) -> list[OpenWait]:
        found: list[Any] = await self._reader.scan(lambda db: db.execute(_WAITS["open"]).fetchall())
        return [OpenWait(run_id=run_id, step_key=key, kind=WaitKind(kind)) for run_id, key, kind in found]

    async def input(self, run: Run) -> RunInput:
        row = self._reader.point(lambda db: db.execute(_SQL["input"], (run.number,)).fetchone())
        return RunInput() if row is None else run_rows.run_input(row)

    async def record(self, run: Run) -> tuple[RunInput, RunResult]:
        row = self._reader.point(lambda db: db.execute(_SQL["record"], (run.number,)).fetchone())
        return (RunInput(), RunResult()) if row is None else (run_rows.run_input(row), run_rows.run_result(row[5:]))

    def claim(
        self, run_id: str, worker_id: str, *, now: Micros, accepted_at: Micros | None = None
    ) -> Awaitable[Moved | Refused]:
        operation = partial(_claim, run_id=run_id, worker_id=worker_id, now=now, accepted_at=accepted_at)
        return self._writer.run(operation, short=True)

    async def accept(self, run_id: str, fence: int, *, now: Micros, accepted_at: Micros) -> Moved | Refused:
        operation = partial(_accept, run_id=run_id, fence=fence, now=now, accepted_at=accepted_at)
        return await self._writer.run(operation, short=True)

    async def release(
        self, run_id: str, fence: int, *, now: Micros, not_before: Micros, crashed: bool, most_crashes: int
    ) -> Moved | Refused:
        operation = partial(
            run_ends.release,
            run_id=run_id,
            fence=fence,
            now=now,
            not_before=not_before,
            crashed=crashed,
            most_crashes=most_crashes,
        )
        return await self._writer.run(operation, short=True)

    def complete(
        self, run_id: str, attempt: Attempt, result: RunResult, publications: Sequence[Publication] = (), *, now: Micros
    ) -> Awaitable[Moved | Refused]:
        short = _short(publications, len(result.result or b"") + len(result.final_state or b""))
        operation = partial(
            run_ends.complete, run_id=run_id, attempt=attempt, result=result, publications=publications, now=now
        )
        return self._writer.run(operation, short=short)

    def fail(
        self,
        run_id: str,
        attempt: Attempt,
        error: str,
        *,
        retryable: bool,
        not_before: Micros,
        final_state: Json | None,
        now: Micros,
    ) -> Awaitable[Moved | Refused]:
        operation = partial(
            run_ends.fail,
            run_id=run_id,
            attempt=attempt,
            error=error,
            retryable=retryable,
            not_before=not_before,
            final_state=final_state,
            now=now,
        )
        return self._writer.run(operation, short=True)

    async def request_cancel(self, project_id: str, run_id: str, by: CancelledBy, *, now: Micros) -> Moved | Refused:
        operation = partial(run_ends.request_cancel, project_id=project_id, run_id=run_id, by=by, now=now)
        return await self._writer.run(operation)

    async def cancelled(self, run_id: str, attempt: Attempt, by: CancelledBy | None, *, now: Micros) -> Moved | Refused:
        return await self._writer.run(partial(run_ends.cancelled, run_id=run_id, attempt=attempt, by=by, now=now))

    def put_step(
        self, project_id: str, run_id: str, attempt: Attempt, step: Step, publications: Sequence[Publication] = ()
    ) -> Awaitable[Moved | Refused]:
        operation = partial(
            _put_step, project_id=project_id, run_id=run_id, attempt=attempt, step=step, publications=publications
        )
        return self._writer.run(operation, short=_short(publications, len(step.outputs)))

    async def step(self, run: Run, step_key: str) -> Step | None:
        row = self._reader.point(lambda db: db.execute(_SQL["step"], (run.number, step_key)).fetchone())
        return None if row is None else run_rows.step(row)

    async def steps(self, run: Run) -> list[Step]:
        query = _SQL["steps"]
        rows: list[Any] = self._reader.point(
            lambda db: db.execute(f"{query} LIMIT {SHORT_ROWS + 1}", (run.number,)).fetchall()
        )
        if len(rows) > SHORT_ROWS:
            rows = await self._reader.scan(lambda db: db.execute(query, (run.number,)).fetchall())
        return [run_rows.step(row) for row in rows]

    async def wait(
        self, run_id: str, attempt: Attempt, wait: NewWait, *, now: Micros, steady: Micros
    ) -> Waited | Refused:
        operation = partial(run_waits.wait, run_id=run_id, attempt=attempt, new=wait, now=now, steady=steady)
        return await self._writer.run(operation, short=True)

    async def suspend(
        self, run_id: str, attempt: Attempt, children: Sequence[NewRun], waits: Sequence[NewWait], *, now: Micros
    ) -> Suspended | Refused:
        size = sum(len(new.payload) for new in children) + sum(len(new.question or b"") for new in waits)
        short = len(children) + len(waits) <= _SHORT_RUNS and size <= SHORT_BYTES
        operation = partial(
            run_suspends.suspend, run_id=run_id, attempt=attempt, children=children, waits=waits, now=now
        )
        return await self._writer.run(operation, short=short)

    async def expire(self, run_id: str, step_key: str, *, now: Micros) -> Moved | Refused:
        operation = partial(run_waits.expire, run_id=run_id, step_key=step_key, now=now)
        return await self._writer.run(operation, short=True)

    async def begin_command(
        self, run_id: str, attempt: Attempt, step_key: str, new: NewExecution
    ) -> CommandBegun | Refused:
        operation = partial(
            run_commands.begin, sealer=self._sealer, run_id=run_id, attempt=attempt, step_key=step_key, new=new
        )
        return await self._writer.run(operation, short=len(new.stdin) <= SHORT_BYTES)

    async def end_command(self, execution_id: str, *, now: Micros) -> Moved | Refused:
        return await self._writer.run(partial(run_commands.end, execution_id=execution_id, now=now), short=True)

    async def open_commands(self) -> list[Command]:
        return await self._reader.scan(lambda db: _commands(db, db.execute(_COMMANDS["open"]).fetchall()))

    async def commands(self, run: Run) -> list[Command]:
        def query(db: apsw.Connection) -> list[Command]:
            found: list[Any] = db.execute(_COMMANDS["of_run"], (run.number,)).fetchall()
            return _commands(db, [(run.id, *row) for row in found])

        return await self._reader.scan(query)

    async def set_span(self, run: Run, span_id: str | None) -> None:
        await self._writer.run(lambda db: db.execute(_SQL["set_span"], (run.number, span_id)) and None, short=True)


def _commands(db: apsw.Connection, rows: Sequence[Any]) -> list[Command]:
    found = ((run_id, key, executions.load(db, execution_id)) for run_id, key, execution_id in rows)
    return [
        Command(run_id=run_id, step_key=key, execution=execution)
        for run_id, key, execution in found
        if execution is not None
    ]


def _claim(
    db: apsw.Connection, run_id: str, worker_id: str, now: Micros, accepted_at: Micros | None
) -> Moved | Refused:
    unit = RunUnit(db, now)
    run = unit.load(run_id)
    if run is None or run.state is not RunState.QUEUED:
        return Refused(run=run)
    claim = {"worker_id": worker_id, "fence": run.fence + 1, "not_before": 0}
    if accepted_at is None:
        claimed = unit.move(run, RunEvent.CLAIMED, **claim)
    else:
        claimed = unit.move(run, RunEvent.CLAIMED, RunEvent.ACCEPTED, **claim, **_taken(run, now, accepted_at))
    return Moved(run=claimed, changed=unit.changed)


def _accept(db: apsw.Connection, run_id: str, fence: int, now: Micros, accepted_at: Micros) -> Moved | Refused:
    unit = RunUnit(db, now)
    run = unit.load(run_id)
    if run is None or run.state is not RunState.CLAIMED or run.fence != fence:
        return Refused(run=run)
    accepted = unit.move(run, RunEvent.ACCEPTED, **_taken(run, now, accepted_at))
    return Moved(run=accepted, changed=unit.changed)


def _taken(run: Run, now: Micros, accepted_at: Micros) -> dict[str, Micros]:
    return {"started_at": run.started_at or now, "running_since": accepted_at}


def _short(publications: Sequence[Publication], size: int) -> bool:
    if not publications:
        return size <= SHORT_BYTES
    return len(publications) <= _SHORT_RUNS and size + sum(len(one.event.data) for one in publications) <= SHORT_BYTES


def _put_step(
    db: apsw.Connection,
    project_id: str,
    run_id: str,
    attempt: Attempt,
    step: Step,
    publications: Sequence[Publication],
) -> Moved | Refused:
    unit = RunUnit(db, step.completed_at)
    run = unit.load(run_id)
    if run is None or run.project_id != project_id:
        return Refused()
    if run.closed or not attempt.holds(run):
        return Refused(run=run)
    if publications and unit.has_step(run, step.step_key):
        return Moved(run=run)
    unit.put_step(run, step)
    told = events.publish_with(unit, project_id, publications)
    return Moved(run=run, changed=unit.changed, told=told)
