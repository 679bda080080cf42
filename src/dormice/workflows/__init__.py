"""Durable workflows: typed async functions whose steps happen once.

    from dormice.workflows import Context, Worker, workflow

    async def charge(cents: int) -> str: ...

    @workflow
    async def order(ctx: Context, cents: int) -> str:
        receipt = await ctx.step("charge", charge, cents)
        await ctx.sleep("settle", 3600)
        return receipt

    Worker([order]).serve()

Start runs with `Workflows` (or `AsyncWorkflows`): `Workflows().start(order, 100)`.
"""

from __future__ import annotations

from dormice.workflows._async.client import AsyncWorkflows
from dormice.workflows._sync.client import Workflows
from dormice.workflows.context import Context
from dormice.workflows.definition import Queue, Workflow, workflow
from dormice.workflows.errors import (
    ChildFailed,
    EventTimeout,
    NonDeterministic,
    NonRetryable,
    NotJson,
    RunFailed,
    StepFailed,
    WorkflowError,
)
from dormice.workflows.records import CommandResult, RunPage, WorkflowRun
from dormice.workflows.starts import Event, Events, Schedule, Tick, Trigger
from dormice.workflows.steps import Retry
from dormice.workflows.worker import Worker

__all__ = [
    "AsyncWorkflows",
    "ChildFailed",
    "CommandResult",
    "Context",
    "Event",
    "EventTimeout",
    "Events",
    "NonDeterministic",
    "NonRetryable",
    "NotJson",
    "Queue",
    "Retry",
    "RunFailed",
    "RunPage",
    "Schedule",
    "StepFailed",
    "Tick",
    "Trigger",
    "Worker",
    "Workflow",
    "WorkflowError",
    "WorkflowRun",
    "Workflows",
    "workflow",
]
