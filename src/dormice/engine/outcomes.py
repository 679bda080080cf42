"""From what a guest reported to what the record says. Pure."""

from __future__ import annotations

import os
import signal as signals

from msgspec.structs import replace

from dormice.domain.execution import ErrorCode, Execution, ExecutionEvent, Micros, Outcome
from dormice.protocol.node import Exited

_EXITED, _SIGNALLED, _NO_PROGRAM, _NO_PERMISSION, _NO_CWD, _NOT_STARTED, _INTERRUPTED = range(1, 8)


def signal_name(number: int) -> str:
    """Return `SIGKILL` for 9; the bare number for those without a name."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def failed(code: ErrorCode, message: str, now: Micros) -> Outcome:
    """Return the outcome of an execution that ended without a report of its own."""
    return Outcome(event=ExecutionEvent.FAILED, completed_at=now, error_code=code, error_message=message)


def cancelled(now: Micros) -> Outcome:
    """Return the outcome of a cancel before anything ran."""
    return Outcome(
        event=ExecutionEvent.CANCELLED,
        completed_at=now,
        error_code=ErrorCode.CANCELLED,
        error_message="cancelled before it started",
    )


def lost(why: str, now: Micros) -> Outcome:
    """Return the outcome of an execution whose machine died under it."""
    return failed(ErrorCode.MACHINE_LOST, f"the machine was lost while it ran: {why}", now)


def wake_failed(code: str, message: str, now: Micros) -> Outcome:
    """Return the outcome of an execution whose machine could not be started."""
    return failed(ErrorCode.WAKE_FAILED, f"its machine could not be started: {code}: {message}", now)


def interrupted(why: str, now: Micros) -> Outcome:
    """Return the outcome of an execution that a sleep or delete of its machine ended."""
    return failed(ErrorCode.EXECUTION_RUNNER_INTERRUPTED, why, now)


def expired(now: Micros) -> Outcome:
    """Return the outcome of a start deadline that passed."""
    return Outcome(
        event=ExecutionEvent.EXPIRED,
        completed_at=now,
        error_code=ErrorCode.START_DEADLINE_EXCEEDED,
        error_message="it could not start before its start deadline (start_timeout_ms)",
    )


def from_guest(execution: Execution, report: Exited, now: Micros, kept_limit: int = 0) -> Outcome:
    """Return the outcome that a guest's report means. Times are clamped to [claim or creation, now].

    What the guest has sent of the output must be there by then, up to `kept_limit` bytes.
    """
    started = clamp(report.started_at, execution.created_at, now) if report.started_at else None
    ended = clamp(report.ended_at, execution.started_at or started or execution.created_at, now)
    base = Outcome(
        event=ExecutionEvent.FAILED,
        completed_at=ended,
        exit_code=report.code if report.how == _EXITED else None,
        signal=report.code if report.how in (_SIGNALLED, _INTERRUPTED) and report.code else None,
        stdout_bytes=report.stdout_total,
        stderr_bytes=report.stderr_total,
        stdout_sent=min(report.stdout_kept, kept_limit),
        stderr_sent=min(report.stderr_kept, kept_limit),
    )
    if report.cancelled or execution.cancel_requested_at is not None:
        return replace(
            base, event=ExecutionEvent.CANCELLED, error_code=ErrorCode.CANCELLED, error_message="cancelled on request"
        )
    if report.timed_out:
        return replace(
            base, error_code=ErrorCode.TIMEOUT, error_message=f"killed after {execution.timeout_ms} ms (timeout_ms)"
        )
    if report.how == _EXITED and report.code == 0:
        return replace(base, event=ExecutionEvent.SUCCEEDED)
    code, message = failure(execution.command[0], execution.cwd, report)
    return replace(base, error_code=code, error_message=message)


_REFUSED_BOOT, _REFUSED_CANCELLED, _REFUSED_RESOURCES, _REFUSED_STOPPING = 1, 2, 3, 4


def from_refusal(execution: Execution, reason: int, now: Micros) -> Outcome:
    """Return the outcome of a start that the guest refused."""
    if reason == _REFUSED_CANCELLED or execution.cancel_requested_at is not None:
        return cancelled(now)
    if reason == _REFUSED_RESOURCES:
        return failed(
            ErrorCode.RESOURCE_EXHAUSTED, "the machine has no memory, process ids or file descriptors left", now
        )
    if reason == _REFUSED_STOPPING:
        return interrupted("its machine was put to sleep before it started", now)
    return lost("another boot of the machine answered", now)


def clamp(nanoseconds: int, low: Micros, high: Micros) -> Micros:
    """Return a guest's time in microseconds, never outside what the server itself knows to be true.

    Where `high` is below `low` (the host's clock went back while the server was down), `low` counts.
    """
    return max(min(nanoseconds // 1000, high), low)


def failure(program: str, cwd: str, report: Exited) -> tuple[ErrorCode, str]:
    """Return why a process failed, by its guest's report."""
    match report.how:
        case 1:
            return ErrorCode.NONZERO_EXIT, f"process exited with code {report.code}"
        case 2 if report.oom:
            return ErrorCode.OOM_KILLED, "killed by the kernel: the machine's memory was used up"
        case 2:
            return ErrorCode.SIGNALLED, f"process was killed by {signal_name(report.code)} ({report.code})"
        case 3:
            return ErrorCode.COMMAND_NOT_FOUND, f"no such program in the machine: {program[:200]!r}"
        case 4:
            return ErrorCode.PERMISSION_DENIED, f"not permitted to execute {program[:200]!r} (is it executable?)"
        case 5:
            return ErrorCode.CWD_NOT_FOUND, f"no such directory to work in, in the machine: {cwd[:200]!r}"
        case 7:
            return ErrorCode.EXECUTION_RUNNER_INTERRUPTED, "ended because its machine was put to sleep or rebooted"
        case _:
            return ErrorCode.SPAWN_FAILED, f"could not be started: {_errno(report.errno)}"


def _errno(number: int) -> str:
    return f"{os.strerror(number)} (errno {number})"
