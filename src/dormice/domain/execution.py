"""An execution: one command on one machine, its states and how they follow one another.

Rules for editing: every state and every legal event is in TRANSITIONS and nowhere else; a state word is wire format
(`contract` section 2.1) and never changes; a terminal state has no way out; the SQL CHECK of every store adapter equals
this table (tests/store compares them).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from uuid import UUID

from msgspec import Struct

from dormice.domain.transitions import follow

Micros = int
"""A moment: microseconds since the Unix epoch, UTC."""


class ExecutionState(StrEnum):
    """The seven states that a client sees."""

    WAKE_IN_PROGRESS = "wake_in_progress"  # its machine is being brought up
    QUEUED = "queued"  # waits for a slot, or its start is under way
    RUNNING = "running"  # the guest has reported the exec
    SUCCEEDED = "succeeded"  # exit code 0
    FAILED = "failed"  # anything else that ended it, see ErrorCode
    CANCELLED = "cancelled"  # somebody asked for its end
    EXPIRED = "expired"  # it could not start in time


TERMINAL = frozenset(
    {ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.CANCELLED, ExecutionState.EXPIRED}
)


class ExecutionEvent(StrEnum):
    """What can happen to an execution."""

    MACHINE_READY = "machine_ready"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


_S, _E = ExecutionState, ExecutionEvent

TRANSITIONS: Mapping[ExecutionState, Mapping[ExecutionEvent, ExecutionState]] = {
    _S.WAKE_IN_PROGRESS: {
        _E.MACHINE_READY: _S.QUEUED,
        _E.FAILED: _S.FAILED,
        _E.CANCELLED: _S.CANCELLED,
        _E.EXPIRED: _S.EXPIRED,
    },
    _S.QUEUED: {
        _E.STARTED: _S.RUNNING,
        _E.FAILED: _S.FAILED,
        _E.CANCELLED: _S.CANCELLED,
        _E.EXPIRED: _S.EXPIRED,
    },
    _S.RUNNING: {
        _E.SUCCEEDED: _S.SUCCEEDED,
        _E.FAILED: _S.FAILED,
        _E.CANCELLED: _S.CANCELLED,
    },
    _S.SUCCEEDED: {},
    _S.FAILED: {},
    _S.CANCELLED: {},
    _S.EXPIRED: {},
}


class ErrorCode(StrEnum):
    """Why an execution did not succeed. Closed: docs/errors.md lists every word with its meaning."""

    NONZERO_EXIT = "nonzero_exit"
    SIGNALLED = "signalled"
    TIMEOUT = "timeout"
    OOM_KILLED = "oom_killed"
    COMMAND_NOT_FOUND = "command_not_found"
    PERMISSION_DENIED = "permission_denied"
    CWD_NOT_FOUND = "cwd_not_found"
    SPAWN_FAILED = "spawn_failed"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    CANCELLED = "cancelled"
    START_DEADLINE_EXCEEDED = "start_deadline_exceeded"
    WAKE_FAILED = "wake_failed"
    MACHINE_LOST = "machine_lost"
    EXECUTION_RUNNER_INTERRUPTED = "execution_runner_interrupted"


class Stream(IntEnum):
    """An output stream; the value is the file descriptor and the number on the guest wire."""

    STDOUT = 1
    STDERR = 2


class StdinMode(StrEnum):
    """Where a command's standard input comes from."""

    EMPTY = "empty"  # end of file at once
    GIVEN = "given"  # the create body's `stdin`, then end of file
    OPEN = "open"  # PUT …/stdin, until eof is sent


TTY = "\0tty"
"""The program of an execution that is a terminal: a tool of the guest's. No client can ask for it: an argv has no NUL."""


class Execution(Struct, frozen=True, kw_only=True):
    """One execution as the store knows it. Secrets (env values, stdin) are not part of it."""

    number: int
    """The store's own ordinal: grows with every execution, orders lists and cursors."""
    id: str
    organization_id: str
    machine_id: str
    state: ExecutionState
    command: tuple[str, ...]
    cwd: str
    env_keys: tuple[str, ...]
    stdin_mode: StdinMode
    timeout_ms: int | None
    created_at: Micros
    start_by: Micros
    """The moment after which it may no longer start, by the clock that deadlines go by."""
    started_at: Micros | None = None
    completed_at: Micros | None = None
    exit_code: int | None = None
    signal: int | None = None
    error_code: ErrorCode | None = None
    error_message: str | None = None
    stdout_bytes: int = 0
    """Bytes the command has written as far as known: exact once terminal."""
    stderr_bytes: int = 0
    stdout_kept: int = 0
    """Bytes in the log: the head of the stream, contiguous from offset 0."""
    stderr_kept: int = 0
    last_sequence: int = 0
    boot_id: UUID | None = None
    """The boot of the machine that this execution was claimed for; None while unclaimed."""
    fence: int = 0
    """Grows with every claim."""
    cancel_requested_at: Micros | None = None
    stdin_offset: int = 0
    """Bytes of standard input committed so far (`OPEN` and `GIVEN`)."""
    stdin_eof: bool = False

    @property
    def terminal(self) -> bool:
        """Whether it has ended."""
        return self.state in TERMINAL

    @property
    def on_tty(self) -> bool:
        """Whether it is a terminal: its input are messages to the tool, and of its output the end is kept."""
        return self.command[0] == TTY

    def on(self, event: ExecutionEvent) -> ExecutionState:
        """Return the state that `event` leads to. Raises IllegalTransition."""
        return follow(TRANSITIONS, self.state, event)


class LogEntry(Struct, frozen=True, kw_only=True):
    """One line of an execution's log: a lifecycle change, or a piece of output."""

    sequence: int
    at: Micros
    state: ExecutionState | None = None
    """Set on lifecycle entries."""
    stream: Stream | None = None
    """Set on output entries, with offset and data."""
    offset: int = 0
    data: bytes = b""
    exit_code: int | None = None
    signal: int | None = None
    error_code: ErrorCode | None = None
    error_message: str | None = None


class Outcome(Struct, frozen=True, kw_only=True):
    """How an execution ended: the event and what goes into the record."""

    event: ExecutionEvent
    completed_at: Micros
    exit_code: int | None = None
    signal: int | None = None
    error_code: ErrorCode | None = None
    error_message: str | None = None
    stdout_bytes: int | None = None
    """Exact totals when known; None leaves what was counted."""
    stderr_bytes: int | None = None
    stdout_sent: int = 0
    """How many bytes must be in the log by then."""
    stderr_sent: int = 0


class Chunk(Struct, frozen=True):
    """A piece of output at its byte offset in its stream."""

    stream: Stream
    offset: int
    data: bytes
