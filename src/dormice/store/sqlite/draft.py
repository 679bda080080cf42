"""One execution being changed inside a transaction.

A draft collects what happens, in order, and at the end writes the log entries, the row and the deletion of secrets that
the new state calls for. Which event is legal is the domain's table alone.
"""

from __future__ import annotations

from typing import Any

import apsw
from msgspec.structs import replace

from dormice.domain.execution import (
    TERMINAL,
    TRANSITIONS,
    Chunk,
    ErrorCode,
    Execution,
    ExecutionEvent,
    ExecutionState,
    Micros,
    Outcome,
    Stream,
)
from dormice.domain.transitions import follow
from dormice.store.interface import OutputMissing
from dormice.store.sqlite import log, secrets, statements, webhook_events

_SQL = statements.load("executions.sql")

CANCEL_MESSAGE = "The execution was cancelled."


class Draft:
    """What becomes of an execution."""

    def __init__(self, execution: Execution) -> None:
        self._before = execution
        self._earliest = execution.started_at or execution.created_at
        """Nothing that happens is recorded as earlier: a host's clock may have gone back since."""
        self._state = execution.state
        self._sequence = execution.last_sequence
        self._kept = {Stream.STDOUT: execution.stdout_kept, Stream.STDERR: execution.stderr_kept}
        self._fields: dict[str, Any] = {}
        self._entries: list[tuple[Any, ...]] = []

    def set(self, **fields: Any) -> None:
        """Set fields that no state depends on."""
        self._fields.update(fields)

    def happen(self, event: ExecutionEvent, at: Micros) -> None:
        """Move the state. Raises IllegalTransition."""
        if event is ExecutionEvent.STARTED:
            self._earliest = self._fields["started_at"] = max(at, self._earliest)
        self._move(event, at)

    def output(self, chunk: Chunk, at: Micros) -> None:
        """Append output. Bytes that are kept already are skipped; a gap raises ValueError."""
        kept = self._kept[chunk.stream]
        if chunk.offset > kept:
            raise ValueError(f"{chunk.stream.name.lower()} has {kept} bytes, a chunk begins at {chunk.offset}")
        data = chunk.data[kept - chunk.offset :]
        if not data:
            return
        if self._state is not ExecutionState.RUNNING:
            raise ValueError(f"output of an execution that is {self._state.value}")
        self._kept[chunk.stream] = kept + len(data)
        self._log(at, None, chunk.stream.value, kept, data, None, None, None, None)

    def end(self, outcome: Outcome) -> None:
        """End it; one whose end was asked for is cancelled, however it went. Raises IllegalTransition, OutputMissing."""
        for stream, sent in ((Stream.STDOUT, outcome.stdout_sent), (Stream.STDERR, outcome.stderr_sent)):
            if self._kept[stream] < sent:
                raise OutputMissing(f"{stream.name.lower()} has {self._kept[stream]} bytes, {sent} were sent")
        if self._before.cancel_requested_at is not None and outcome.event is not ExecutionEvent.CANCELLED:
            follow(TRANSITIONS, self._state, outcome.event)  # what cannot be stays refused
            outcome = cancelled(outcome.completed_at, outcome)
        code = outcome.error_code
        completed_at = max(outcome.completed_at, self._earliest)
        result = (outcome.exit_code, outcome.signal, code and code.value, outcome.error_message)
        self._move(outcome.event, completed_at, *result)
        self._fields.update(
            completed_at=completed_at,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            error_code=code,
            error_message=outcome.error_message,
        )
        for field, total in (("stdout_bytes", outcome.stdout_bytes), ("stderr_bytes", outcome.stderr_bytes)):
            if total is not None:
                self._fields[field] = total

    def write(self, db: apsw.Connection) -> Execution:
        """Write everything and return the execution as it is now."""
        before, after = self._before, self._result()
        if self._entries:
            db.executemany(log.APPEND, self._entries)
        if after.state is not before.state:
            if before.started_at is None and (after.terminal or after.started_at is not None):
                secrets.delete_env(db, after)
            if after.terminal:
                secrets.delete_stdin(db, after)
                webhook_events.execution_ended(db, after)
        _save(db, after)
        return after

    def _move(self, event: ExecutionEvent, at: Micros, *result: Any) -> None:
        self._state = follow(TRANSITIONS, self._state, event)
        self._log(at, self._state.value, None, None, None, *(result or (None, None, None, None)))

    def _log(self, at: Micros, *values: Any) -> None:
        self._sequence += 1
        self._entries.append((self._before.number, self._sequence, max(at, self._earliest), *values))

    def _result(self) -> Execution:
        stdout, stderr = self._kept[Stream.STDOUT], self._kept[Stream.STDERR]
        fields = self._fields
        fields["stdout_bytes"] = max(stdout, fields.get("stdout_bytes", 0))
        fields["stderr_bytes"] = max(stderr, fields.get("stderr_bytes", 0))
        return replace(
            self._before,
            state=self._state,
            last_sequence=self._sequence,
            stdout_kept=stdout,
            stderr_kept=stderr,
            **fields,
        )


def cancelled(at: Micros, outcome: Outcome | None = None) -> Outcome:
    """The end of an execution whose end was asked for, with what is known of how it went."""
    if outcome is None:
        outcome = Outcome(event=ExecutionEvent.CANCELLED, completed_at=at)
    return replace(
        outcome, event=ExecutionEvent.CANCELLED, error_code=ErrorCode.CANCELLED, error_message=CANCEL_MESSAGE
    )


def _save(db: apsw.Connection, execution: Execution) -> None:
    values: tuple[Any, ...] = (
        execution.state.value,
        execution.started_at,
        execution.stdout_bytes,
        execution.stderr_bytes,
        execution.stdout_kept,
        execution.stderr_kept,
        execution.last_sequence,
        execution.boot_id and execution.boot_id.bytes,
        execution.fence,
        execution.cancel_requested_at,
        execution.stdin_offset,
        execution.stdin_eof,
    )
    if execution.state in TERMINAL:
        code = execution.error_code
        end = (
            execution.completed_at,
            execution.exit_code,
            execution.signal,
            code and code.value,
            execution.error_message,
        )
        db.execute(_SQL["save_end"], (*values, *end, execution.number))
    else:
        db.execute(_SQL["save"], (*values, execution.number))
