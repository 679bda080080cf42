"""Our own worker, which fetches its work."""

from __future__ import annotations

import asyncio

from bench.peers.programs.steps import STEPS, Step, step
from dormice.workflows import Context, Worker, workflow


async def one_step(number: int) -> Step:
    return step(number)


@workflow
async def three_steps(ctx: Context) -> list[Step]:
    return [await ctx.step(f"step-{number}", one_step, number) for number in STEPS]


async def main() -> None:
    await Worker([three_steps], max_concurrent=64).run()


if __name__ == "__main__":
    asyncio.run(main())
