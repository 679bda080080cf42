# Generated from _async/runs.py by scripts/generate_sync_client.py; change that and run it again.
"""One command from its start to its record: what `machines.run` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from dormice.client._sync.executions import Executions
from dormice.client.errors import ConflictError
from dormice.client.records import CompletedExecution, Execution

MOST_INLINE_STDIN = 65_536
"""Bytes. More than this, or what is no UTF-8, is written after the start."""
STDIN_PIECE = 262_144
FIRST_WAIT_MS = 20_000

Listener = Callable[[bytes], object]


def run(
    executions: Executions,
    machine_id: str,
    argv: Sequence[str],
    *,
    cwd: str | None,
    env: Mapping[str, str] | None,
    stdin: bytes | str | None,
    timeout_ms: int | None,
    on_stdout: Listener | None,
    on_stderr: Listener | None,
    on_created: Callable[[Execution], object] | None,
    idempotency_key: str | None,
) -> CompletedExecution:
    inline, rest = _split(stdin)
    live = on_stdout is not None or on_stderr is not None or on_created is not None
    execution = executions.create(
        machine_id,
        command=argv,
        cwd=cwd,
        env=env,
        stdin=inline,
        stdin_open=True if rest else None,
        timeout_ms=timeout_ms,
        wait_ms=None if live or rest else FIRST_WAIT_MS,
        idempotency_key=idempotency_key,
    )
    if on_created:
        on_created(execution)
    if rest:
        _write(executions, execution, rest)
    if on_stdout or on_stderr:
        return _followed(executions, execution, on_stdout or _ignore, on_stderr or _ignore)
    return _awaited(executions, execution)


def _split(stdin: bytes | str | None) -> tuple[str | None, bytes]:
    """What goes into the request that starts the command, and what is written afterwards."""
    if not stdin:
        return None, b""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    if len(data) <= MOST_INLINE_STDIN:
        try:
            return data.decode(), b""
        except UnicodeDecodeError:
            pass
    return None, data


def _ignore(_: bytes) -> None:
    pass


def _write(executions: Executions, execution: Execution, data: bytes) -> None:
    """Write all of it, unless the process ends before it has read so much."""
    at = 0
    while at < len(data):
        piece = data[at : at + STDIN_PIECE]
        eof = at + len(piece) == len(data)
        try:
            position = executions.write_stdin(
                execution.execution_id, machine_id=execution.machine_id, offset=at, data=piece, eof=eof
            )
        except ConflictError as error:
            if "expected_offset" in error.details:
                raise
            return
        at = position.offset


def _followed(
    executions: Executions, execution: Execution, on_stdout: Listener, on_stderr: Listener
) -> CompletedExecution:
    stdout, stderr = bytearray(), bytearray()
    targets = {"stdout": (stdout, on_stdout), "stderr": (stderr, on_stderr)}
    with executions.stream(execution.execution_id, machine_id=execution.machine_id) as events:
        for event in events:
            if event.type in targets:
                kept, listener = targets[event.type]
                kept += event.data
                listener(event.data)
    ended = executions.wait(execution.execution_id, machine_id=execution.machine_id)
    return _completed(ended, bytes(stdout), bytes(stderr))


def _awaited(executions: Executions, execution: Execution) -> CompletedExecution:
    """Without a listener nothing needs to be live: wait for the end, then read what is there."""
    where = execution.machine_id
    if not execution.finished:
        execution = executions.wait(execution.execution_id, machine_id=where)
    stdout = stderr = b""
    if execution.stdout_bytes != 0:
        stdout = executions.read_output(execution.execution_id, machine_id=where, stream="stdout")
    if execution.stderr_bytes != 0:
        stderr = executions.read_output(execution.execution_id, machine_id=where, stream="stderr")
    return _completed(execution, stdout, stderr)


def _completed(execution: Execution, stdout: bytes, stderr: bytes) -> CompletedExecution:
    return CompletedExecution(**msgspec.structs.asdict(execution), stdout=stdout, stderr=stderr)
