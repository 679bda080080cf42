# mypy: ignore-errors
# No `from __future__ import annotations`: the SDK looks at the annotations of a workflow's parameters.
"""Our workflows that events start."""

from typing import Any

from polos import WorkflowContext, workflow

from tests.conformance.workflows.flows import note


@workflow(id="on_one", trigger_on_event="flows/one")
async def on_one(ctx: WorkflowContext, payload: dict) -> Any:
    note(ctx, "triggered", payload=payload, session=ctx.session_id)
    return payload


@workflow(id="on_some", trigger_on_event="flows/some", batch_size=3, batch_timeout_seconds=2)
async def on_some(ctx: WorkflowContext, payload: dict) -> int:
    note(ctx, "triggered", payload=payload)
    return len(payload["events"])
