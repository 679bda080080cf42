"""Rows to domain objects: one function per kind of row."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from dormice.domain.execution import ErrorCode, Execution, ExecutionState, LogEntry, StdinMode, Stream

_strings = msgspec.json.Decoder(tuple[str, ...])
# Looking a word up is several times faster than calling its enum.
_STATES = {state.value: state for state in ExecutionState}
_CODES = {code.value: code for code in ErrorCode}
_MODES = {mode.value: mode for mode in StdinMode}
_STREAMS = {stream.value: stream for stream in Stream}


def execution(row: tuple[Any, ...]) -> Execution:
    """A row of the view `execution_records`."""
    return Execution(
        number=row[0],
        id=row[1],
        organization_id=row[2],
        machine_id=row[3],
        state=_STATES[row[4]],
        command=_strings.decode(row[5]),
        cwd=row[6],
        env_keys=_strings.decode(row[7]),
        stdin_mode=_MODES[row[8]],
        timeout_ms=row[9],
        created_at=row[10],
        start_by=row[11],
        started_at=row[12],
        completed_at=row[13],
        exit_code=row[14],
        signal=row[15],
        error_code=row[16] and _CODES[row[16]],
        error_message=row[17],
        stdout_bytes=row[18],
        stderr_bytes=row[19],
        stdout_kept=row[20],
        stderr_kept=row[21],
        last_sequence=row[22],
        boot_id=row[23] and UUID(bytes=row[23]),
        fence=row[24],
        cancel_requested_at=row[25],
        stdin_offset=row[26],
        stdin_eof=bool(row[27]),
    )


def entry(row: tuple[Any, ...]) -> LogEntry:
    """A row of the log, from its sequence on."""
    sequence, at, state, stream, offset, data, exit_code, signal, error_code, error_message = row
    if stream is not None:
        return LogEntry(sequence=sequence, at=at, stream=_STREAMS[stream], offset=offset, data=data)
    return LogEntry(
        sequence=sequence,
        at=at,
        state=_STATES[state],
        exit_code=exit_code,
        signal=signal,
        error_code=error_code and _CODES[error_code],
        error_message=error_message,
    )
