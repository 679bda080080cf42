"""Our own worker, which fetches its work."""

from __future__ import annotations

import asyncio

from bench.peers.programs import dormice_flows
from bench.peers.programs.dormice_flows import one_step
from bench.peers.programs.steps import STEPS, Step
from dormice.workflows import Context, Worker, workflow


@workflow
async def three_steps(ctx: Context) -> list[Step]:
    return [await ctx.step(f"step-{number}", one_step, number) for number in STEPS]


async def main() -> None:
    await Worker([three_steps, *dormice_flows.ALL], max_concurrent=64).run()


if __name__ == "__main__":
    asyncio.run(main())
