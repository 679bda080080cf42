"""Executions: every method of the port, each one transaction."""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from functools import partial
from typing import Any
from uuid import UUID

import apsw
import msgspec

from dormice.domain.execution import (
    Execution,
    ExecutionEvent,
    ExecutionState,
    LogEntry,
    Micros,
    Outcome,
    StdinMode,
    Stream,
)
from dormice.store.interface import (
    IdempotencyClaim,
    KeyReused,
    LostRace,
    NewExecution,
    Progress,
    Replayed,
    StdinRefusal,
    StdinSegment,
)
from dormice.store.sealing import Sealer
from dormice.store.sqlite import artifacts, idempotency, log, rows, secrets, statements
from dormice.store.sqlite.draft import Draft, cancelled
from dormice.store.sqlite.reader import SHORT_BYTES, SHORT_ROWS, Reader
from dormice.store.sqlite.writer import Writer

_SQL = statements.load("executions.sql")
_json = msgspec.json.Encoder()


class SqliteExecutions:
    """ExecutionStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader, sealer: Sealer) -> None:
        self._writer = writer
        self._reader = reader
        self._sealer = sealer

    async def create(self, new: NewExecution, claim: IdempotencyClaim | None) -> Execution | Replayed | KeyReused:
        size = len(new.stdin) + sum(map(len, new.command)) + sum(map(len, new.env.values()))
        operation = partial(create, sealer=self._sealer, new=new, claim=claim)
        return await self._writer.run(operation, short=size <= SHORT_BYTES)

    async def get(self, organization_id: str, machine_id: str, execution_id: str) -> Execution | None:
        values = (organization_id, machine_id, execution_id)
        row = self._reader.point(lambda db: db.execute(_SQL["get"], values).get)
        return None if row is None else rows.execution(row)

    async def page(self, organization_id: str, machine_id: str, *, before: int | None, limit: int) -> list[Execution]:
        values = (organization_id, machine_id, sys.maxsize if before is None else before, limit)
        found = await self._reader.read(
            lambda db: db.execute(_SQL["page"], values).fetchall(), short=limit <= SHORT_ROWS
        )
        return [rows.execution(row) for row in found]

    async def open(self) -> list[Execution]:
        return await self._reader.scan(lambda db: [rows.execution(row) for row in db.execute(_SQL["open"])])

    async def last_ends(self, limit: int) -> dict[str, Micros]:
        return await self._reader.scan(partial(_last_ends, limit=limit))

    async def entries(self, execution: Execution, *, after: int, limit: int, max_bytes: int) -> list[LogEntry]:
        query = partial(log.entries, execution=execution, after=after, limit=limit, max_bytes=max_bytes)
        short = _short(execution, min(limit, execution.last_sequence - after))
        return await self._reader.read(query, short=short)

    async def output(self, execution: Execution, stream: Stream, *, start: int, end: int) -> bytes:
        query = partial(log.output, execution=execution, stream=stream, start=start, end=end)
        return await self._reader.read(query, short=_short(execution, execution.last_sequence))

    async def machine_ready(
        self, machine_id: str, now: Micros, *, boot_id: UUID | None = None, slots: int = 0
    ) -> list[Execution]:
        operation = partial(_machine_ready, machine_id=machine_id, now=now, boot_id=boot_id, slots=slots)
        return await self._writer.run(operation)

    async def claim(self, execution_id: str, boot_id: UUID, now: Micros) -> Execution | LostRace:
        del now  # a claim is no entry of the log
        return await self._writer.run(partial(_claim, execution_id=execution_id, boot_id=boot_id), short=True)

    def progress(self, progress: Progress) -> Awaitable[Execution | LostRace]:
        short = sum(len(chunk.data) for chunk in progress.chunks) <= SHORT_BYTES
        return self._writer.run(partial(_progress, progress=progress), short=short)

    async def end_unstarted(self, execution_id: str, outcome: Outcome) -> Execution | LostRace:
        return await self._writer.run(partial(_end_unstarted, execution_id=execution_id, outcome=outcome))

    async def end_boot(self, machine_id: str, boot_id: UUID | None, outcome: Outcome) -> list[Execution]:
        return await self._writer.run(partial(_end_boot, machine_id=machine_id, boot_id=boot_id, outcome=outcome))

    async def request_cancel(self, execution_id: str, now: Micros) -> Execution | None:
        return await self._writer.run(partial(_request_cancel, execution_id=execution_id, now=now))

    async def environment(self, execution: Execution) -> dict[str, str]:
        return self._reader.point(partial(secrets.environment, sealer=self._sealer, execution=execution))

    async def append_stdin(
        self,
        execution_id: str,
        offset: int | None,
        data: bytes,
        *,
        eof: bool,
        now: Micros,
        most_kept: int | None = None,
    ) -> Execution | StdinRefusal | None:
        del now  # input is no entry of the log
        operation = partial(
            _append_stdin,
            sealer=self._sealer,
            execution_id=execution_id,
            offset=offset,
            data=data,
            eof=eof,
            most_kept=most_kept,
        )
        return await self._writer.run(operation)

    async def stdin(self, execution: Execution, *, offset: int, max_bytes: int) -> list[StdinSegment]:
        query = partial(secrets.stdin, sealer=self._sealer, execution=execution, offset=offset, max_bytes=max_bytes)
        short = execution.stdin_offset - offset <= SHORT_BYTES
        return await self._reader.read(query, short=short)

    async def trim_stdin(self, execution_id: str, offset: int) -> None:
        await self._writer.run(partial(secrets.trim_stdin, execution_id=execution_id, offset=offset))


def _short(execution: Execution, entries: int) -> bool:
    return entries <= SHORT_ROWS and execution.stdout_kept + execution.stderr_kept <= SHORT_BYTES


def load(db: apsw.Connection, execution_id: str) -> Execution | None:
    """Return an execution as it is now."""
    row = db.execute(_SQL["load"], (execution_id,)).get
    return None if row is None else rows.execution(row)


def _last_ends(db: apsw.Connection, *, limit: int) -> dict[str, Micros]:
    latest_first: list[Any] = db.execute(_SQL["last_ends"], (limit,)).fetchall()
    return dict(reversed(latest_first))


def _open_of(db: apsw.Connection, machine_id: str) -> list[Execution]:
    return [rows.execution(row) for row in db.execute(_SQL["open_of"], (machine_id,)).fetchall()]


def create(
    db: apsw.Connection, sealer: Sealer, new: NewExecution, claim: IdempotencyClaim | None
) -> Execution | Replayed | KeyReused:
    """Record an execution."""
    if (answer := idempotency.find(db, claim)) is not None:
        return answer
    state = ExecutionState.QUEUED if new.awake else ExecutionState.WAKE_IN_PROGRESS
    fence = 0 if new.boot_id is None else 1
    stdin_eof = new.stdin_mode is not StdinMode.OPEN
    boot = new.boot_id and new.boot_id.bytes
    row = (new.id, state.value, new.now, new.start_by, boot, fence, len(new.stdin), stdin_eof)
    number = db.execute(_SQL["insert"], (new.organization_id, new.machine_id, *row)).get
    if number is None:
        raise LookupError(f"organization {new.organization_id} has no machine {new.machine_id}")
    env_keys = tuple(new.env)
    request = (_json.encode(new.command), new.cwd, _json.encode(env_keys), new.stdin_mode.value, new.timeout_ms)
    db.execute(_SQL["insert_request"], (number, *request))
    db.execute(log.APPEND, (number, 1, new.now, state.value, None, None, None, None, None, None, None))
    secrets.keep_env(db, sealer, number, new.id, new.env)
    secrets.keep_stdin(db, sealer, number, new.id, new.stdin, offset=0)
    if new.artifacts:
        artifacts.expect(db, new)
    idempotency.remember(db, claim, new.id)
    return Execution(
        number=number,
        id=new.id,
        organization_id=new.organization_id,
        machine_id=new.machine_id,
        state=state,
        command=new.command,
        cwd=new.cwd,
        env_keys=env_keys,
        stdin_mode=new.stdin_mode,
        timeout_ms=new.timeout_ms,
        created_at=new.now,
        start_by=new.start_by,
        last_sequence=1,
        boot_id=new.boot_id,
        fence=fence,
        stdin_offset=len(new.stdin),
        stdin_eof=stdin_eof,
    )


def _machine_ready(
    db: apsw.Connection, machine_id: str, now: Micros, boot_id: UUID | None, slots: int
) -> list[Execution]:
    moved: list[Execution] = []
    for execution in _open_of(db, machine_id):
        if execution.state is ExecutionState.WAKE_IN_PROGRESS:
            draft = Draft(execution)
            draft.happen(ExecutionEvent.MACHINE_READY, now)
            if boot_id is not None and len(moved) < slots:
                draft.set(boot_id=boot_id, fence=execution.fence + 1)
            moved.append(draft.write(db))
    return moved


def _claim(db: apsw.Connection, execution_id: str, boot_id: UUID) -> Execution | LostRace:
    execution = load(db, execution_id)
    if execution is None or execution.state is not ExecutionState.QUEUED or execution.boot_id is not None:
        return LostRace(execution)
    draft = Draft(execution)
    draft.set(boot_id=boot_id, fence=execution.fence + 1)
    return draft.write(db)


def _progress(db: apsw.Connection, progress: Progress) -> Execution | LostRace:
    execution = load(db, progress.execution_id)
    if execution is None or execution.terminal or execution.boot_id != progress.boot_id:
        return LostRace(execution)
    draft = Draft(execution)
    if progress.requeue:
        if execution.state is not ExecutionState.QUEUED:
            return LostRace(execution)
        draft.set(boot_id=None)
        if execution.cancel_requested_at is not None:
            draft.end(cancelled(progress.now))
        return draft.write(db)
    if progress.started_at is not None and execution.state is not ExecutionState.RUNNING:
        draft.happen(ExecutionEvent.STARTED, progress.started_at)
    for chunk in log.merged(progress.chunks):
        draft.output(chunk, progress.now)
    if progress.outcome is not None:
        draft.end(progress.outcome)
    after = draft.write(db)
    if progress.scrollback is not None and progress.chunks:
        log.trim(db, after, progress.scrollback)
    return after


def _end_unstarted(db: apsw.Connection, execution_id: str, outcome: Outcome) -> Execution | LostRace:
    execution = load(db, execution_id)
    if execution is None or execution.terminal or execution.boot_id is not None:
        return LostRace(execution)
    draft = Draft(execution)
    draft.end(outcome)
    return draft.write(db)


def _end_boot(db: apsw.Connection, machine_id: str, boot_id: UUID | None, outcome: Outcome) -> list[Execution]:
    ended: list[Execution] = []
    for execution in _open_of(db, machine_id):
        if boot_id is None or execution.boot_id == boot_id:
            draft = Draft(execution)
            draft.end(outcome)
            ended.append(draft.write(db))
    return ended


def _request_cancel(db: apsw.Connection, execution_id: str, now: Micros) -> Execution | None:
    execution = load(db, execution_id)
    if execution is None or execution.terminal or execution.cancel_requested_at is not None:
        return execution
    draft = Draft(execution)
    draft.set(cancel_requested_at=now)
    if execution.boot_id is None:
        draft.end(cancelled(now))
    return draft.write(db)


def _append_stdin(
    db: apsw.Connection,
    sealer: Sealer,
    execution_id: str,
    offset: int | None,
    data: bytes,
    *,
    eof: bool,
    most_kept: int | None,
) -> Execution | StdinRefusal | None:
    execution = load(db, execution_id)
    if execution is None:
        return None
    if execution.terminal:
        return StdinRefusal.ENDED
    if execution.stdin_mode is not StdinMode.OPEN:
        return StdinRefusal.CLOSED
    committed = execution.stdin_offset
    offset = committed if offset is None else offset
    end = offset + len(data)
    if offset > committed:
        return StdinRefusal.GAP
    if end > committed and execution.stdin_eof:
        return StdinRefusal.CLOSED
    if end < committed and eof:
        return StdinRefusal.GAP  # the end cannot stand before what was committed
    if end == committed and eof <= execution.stdin_eof:
        return execution
    if most_kept is not None and (kept := secrets.stdin_kept(db, execution)) and kept + end - committed > most_kept:
        return StdinRefusal.FULL
    secrets.keep_stdin(db, sealer, execution.number, execution.id, data[committed - offset :], offset=committed)
    draft = Draft(execution)
    draft.set(stdin_offset=max(end, committed), stdin_eof=execution.stdin_eof or eof)
    return draft.write(db)
