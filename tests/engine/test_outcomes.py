"""From a guest's report to the record: every way to end."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dormice.domain.execution import ErrorCode, Execution, ExecutionEvent, ExecutionState, StdinMode
from dormice.engine import outcomes
from dormice.protocol.node import Exited

NOW = 5_000_000
EXECUTION = Execution(
    number=1,
    id="exec-00000000-0000-7000-8000-000000000001",
    organization_id="o",
    machine_id="m",
    state=ExecutionState.RUNNING,
    command=("prog", "arg"),
    cwd="/root",
    env_keys=(),
    stdin_mode=StdinMode.EMPTY,
    timeout_ms=500,
    created_at=1_000_000,
    start_by=2_000_000,
    started_at=1_500_000,
)


def report(how: int, code: int = 0, **flags: bool) -> Exited:
    return Exited(
        "m",
        bytes(16),
        how,
        code,
        12,
        1,
        2,
        3,
        4,
        **{"timed_out": False, "cancelled": False, "drained": False, "oom": False, **flags},
    )


@pytest.mark.parametrize(
    ("exited", "event", "error", "exit_code", "signal"),
    [
        (report(1, 0), ExecutionEvent.SUCCEEDED, None, 0, None),
        (report(1, 3), ExecutionEvent.FAILED, ErrorCode.NONZERO_EXIT, 3, None),
        (report(2, 11), ExecutionEvent.FAILED, ErrorCode.SIGNALLED, None, 11),
        (report(2, 9, oom=True), ExecutionEvent.FAILED, ErrorCode.OOM_KILLED, None, 9),
        (report(2, 9, timed_out=True), ExecutionEvent.FAILED, ErrorCode.TIMEOUT, None, 9),
        (report(1, 0, timed_out=True), ExecutionEvent.FAILED, ErrorCode.TIMEOUT, 0, None),
        (report(2, 15, cancelled=True), ExecutionEvent.CANCELLED, ErrorCode.CANCELLED, None, 15),
        (report(1, 0, cancelled=True), ExecutionEvent.CANCELLED, ErrorCode.CANCELLED, 0, None),
        (report(3), ExecutionEvent.FAILED, ErrorCode.COMMAND_NOT_FOUND, None, None),
        (report(4), ExecutionEvent.FAILED, ErrorCode.PERMISSION_DENIED, None, None),
        (report(5), ExecutionEvent.FAILED, ErrorCode.CWD_NOT_FOUND, None, None),
        (report(6), ExecutionEvent.FAILED, ErrorCode.SPAWN_FAILED, None, None),
        (report(7, 15), ExecutionEvent.FAILED, ErrorCode.EXECUTION_RUNNER_INTERRUPTED, None, 15),
        (report(7, 0), ExecutionEvent.FAILED, ErrorCode.EXECUTION_RUNNER_INTERRUPTED, None, None),
    ],
)
def test_each_end_has_its_event_and_code(
    exited: Exited, event: ExecutionEvent, error: ErrorCode | None, exit_code: int | None, signal: int | None
) -> None:
    outcome = outcomes.from_guest(EXECUTION, exited, NOW)
    assert (outcome.event, outcome.error_code, outcome.exit_code, outcome.signal) == (event, error, exit_code, signal)
    assert (outcome.error_message is None) is (error is None)
    assert (outcome.stdout_bytes, outcome.stderr_bytes) == (3, 4)


def test_a_guests_clock_is_believed_only_within_what_the_server_knows() -> None:
    early = outcomes.from_guest(EXECUTION, report(1), NOW)
    late = outcomes.from_guest(EXECUTION, replace_ended(report(1), 9_000_000_000), NOW)
    assert early.completed_at == EXECUTION.started_at
    assert late.completed_at == NOW


def test_once_a_cancel_was_asked_for_the_end_is_cancelled_with_the_true_exit_code() -> None:
    asked = replace(EXECUTION, cancel_requested_at=2_000_000)
    outcome = outcomes.from_guest(asked, report(1, 7), NOW)
    assert (outcome.event, outcome.exit_code) == (ExecutionEvent.CANCELLED, 7)


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (1, ErrorCode.MACHINE_LOST),
        (2, ErrorCode.CANCELLED),
        (3, ErrorCode.RESOURCE_EXHAUSTED),
        (4, ErrorCode.EXECUTION_RUNNER_INTERRUPTED),
    ],
)
def test_each_refusal_has_its_code(reason: int, error: ErrorCode) -> None:
    outcome = outcomes.from_refusal(EXECUTION, reason, NOW)
    assert (outcome.error_code, outcome.exit_code, outcome.signal) == (error, None, None)


def replace_ended(exited: Exited, at: int) -> Exited:
    fields = {name: getattr(exited, name) for name in exited.__struct_fields__}
    return Exited(**{**fields, "ended_at": at})
