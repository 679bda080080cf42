"""What a worker that fetches its work is sent: one JSON document a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Raw, Struct

from dormice.domain import documents
from dormice.domain.moments import rfc3339
from dormice.domain.run import Json, Run, Step

_encode = msgspec.json.Encoder().encode
KEEP_ALIVE = b"\n"
"""Sent when there is nothing else to say."""


class Connected(Struct, kw_only=True, tag_field="type", tag="connected"):
    """The first line."""

    worker_id: str
    lost_ms: int
    """The worker has to let go of its runs when none of its requests was answered for so long."""
    runs: Mapping[str, int]
    """What it has and may go on with, of all that it said that it has."""


class StepLine(Struct, kw_only=True):
    """A step that is not to be run again."""

    step_key: str
    outputs: Raw
    error: Raw
    source_run_id: str | None


class RunLine(Struct, kw_only=True, tag_field="type", tag="run"):
    """A run that is to be run, and all that is needed for it."""

    run_id: str
    fence: int
    workflow_id: str
    payload: Raw
    retry_count: int
    created_at: str
    parent_id: str | None
    root_id: str
    root_workflow_id: str
    step_key: str | None
    session_id: str | None
    user_id: str | None
    run_timeout_seconds: int | None
    initial_state: Raw
    steps: Sequence[StepLine]


class CancelLine(Struct, kw_only=True, tag_field="type", tag="cancel"):
    """A run that is to be ended; the worker says when it has."""

    run_id: str
    fence: int


def connected_line(worker_id: str, lost_ms: int, runs: Mapping[str, int]) -> bytes:
    """Return the first line."""
    return _encode(Connected(worker_id=worker_id, lost_ms=lost_ms, runs=runs)) + b"\n"


def run_line(run: Run, *, payload: Json, initial_state: Json | None, steps: Sequence[Step]) -> bytes:
    """Return the line of a run that the worker is to run."""
    line = RunLine(
        run_id=run.id,
        fence=run.fence,
        workflow_id=run.workflow_id,
        payload=Raw(payload),
        retry_count=run.retry_count,
        created_at=rfc3339(run.created_at),
        parent_id=run.parent_id,
        root_id=run.root_id or run.id,
        root_workflow_id=run.root_workflow_id or run.workflow_id,
        step_key=run.step_key,
        session_id=run.session_id,
        user_id=run.user_id,
        run_timeout_seconds=run.run_timeout_seconds,
        initial_state=documents.raw(initial_state),
        steps=[_step(step) for step in steps],
    )
    return _one_line(_encode(line))


def cancel_line(run: Run) -> bytes:
    """Return the line of a run that the worker is to end."""
    return _encode(CancelLine(run_id=run.id, fence=run.fence)) + b"\n"


def _step(step: Step) -> StepLine:
    error = documents.raw(step.error)
    if step.error is None and not step.success:
        error = Raw(b'{"message":"the step failed"}')
    return StepLine(step_key=step.step_key, outputs=Raw(step.outputs), error=error, source_run_id=step.source_run_id)


def _one_line(document: bytes) -> bytes:
    """Documents are kept as they came, with any white space that they had: in JSON, a line end is nothing else."""
    return document.replace(b"\n", b" ") + b"\n"
