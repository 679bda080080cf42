"""What workers are sent (contract `workflows-api`, section 3.1)."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from dormice.domain import documents
from dormice.domain.moments import rfc3339
from dormice.domain.run import Json, Run

_encode = msgspec.json.Encoder().encode


class ExecuteRequest(Struct, kw_only=True):
    """The body of POST /execute: every key is there."""

    worker_id: str
    execution_id: str
    workflow_id: str
    deployment_id: str
    payload: Raw
    parent_execution_id: str | None
    root_execution_id: str
    root_workflow_id: str
    step_key: str | None
    retry_count: int
    created_at: str
    session_id: str | None
    user_id: str | None
    otel_traceparent: str | None
    otel_span_id: str | None
    initial_state: Raw
    run_timeout_seconds: int | None
    channel_context: Raw


def execute_body(
    run: Run,
    *,
    payload: Json,
    initial_state: Json | None,
    channel_context: Json | None,
    traceparent: str | None,
    span_id: str | None,
) -> bytes:
    """Return what a worker is sent of a run that it has claimed."""
    return _encode(
        ExecuteRequest(
            worker_id=run.worker_id or "",
            execution_id=run.id,
            workflow_id=run.workflow_id,
            deployment_id=run.deployment_id,
            payload=Raw(payload),
            parent_execution_id=run.parent_id,
            root_execution_id=run.root_id or run.id,
            root_workflow_id=run.root_workflow_id or run.workflow_id,
            step_key=run.step_key,
            retry_count=run.retry_count,
            created_at=rfc3339(run.created_at),
            session_id=run.session_id,
            user_id=run.user_id,
            otel_traceparent=traceparent,
            otel_span_id=span_id,
            initial_state=documents.raw(initial_state),
            run_timeout_seconds=run.run_timeout_seconds,
            channel_context=documents.raw(channel_context),
        )
    )
