# mypy: ignore-errors
# No `from __future__ import annotations`: the SDK looks at the annotations of a workflow's parameters.
"""Our workflows that run by the clock."""

from polos import SchedulePayload, WorkflowContext, workflow

from tests.conformance.workflows import marks


def fired(ctx: WorkflowContext, payload: SchedulePayload) -> None:
    marks.note(ctx.execution_id, "fired", workflow=ctx.workflow_id, payload=payload.model_dump(mode="json"))


@workflow(id="each_minute", schedule="* * * * *")
async def each_minute(ctx: WorkflowContext, payload: SchedulePayload) -> None:
    fired(ctx, payload)


@workflow(id="each_minute_elsewhere", schedule={"cron": "*/1 * * * *", "timezone": "Asia/Kolkata", "key": "k"})
async def each_minute_elsewhere(ctx: WorkflowContext, payload: SchedulePayload) -> None:
    fired(ctx, payload)


@workflow(id="when_told", schedule=True)
async def when_told(ctx: WorkflowContext, payload: SchedulePayload) -> None:
    fired(ctx, payload)


@workflow(id="overruns", schedule="* * * * *")
async def overruns(ctx: WorkflowContext, payload: SchedulePayload) -> None:
    """Still runs at the next tick."""
    fired(ctx, payload)
    await marks.gate("overruns")
