"""Prefect's client, which runs the flow itself: `serve` and workers start a process for every run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prefect import flow, task

from bench.peers.programs.load import serve
from bench.peers.programs.steps import STEPS, Step, step


@task
async def run_step(number: int) -> Step:
    return step(number)


@flow
async def three_steps() -> list[Step]:
    return [await run_step(number) for number in STEPS]


async def run() -> Sequence[Step]:
    return await three_steps()


if __name__ == "__main__":
    asyncio.run(serve(run))
