# mypy: ignore-errors
# No `from __future__ import annotations`: the SDK looks at the annotations of a workflow's parameters.
"""A worker of the foreign SDK `polos-sdk`, as it comes from PyPI. It listens on port 8000, whatever it is told."""

import asyncio

from polos import Polos, WorkflowContext, workflow

from bench.peers.programs.steps import STEPS, Step, step


@workflow(id="plain")
async def plain(_: WorkflowContext) -> int:
    return 42


@workflow(id="three_steps")
async def three_steps(ctx: WorkflowContext) -> list[Step]:
    return [await ctx.step.run(f"step-{number}", step, number) for number in STEPS]


if __name__ == "__main__":
    asyncio.run(Polos().serve())
