"""Temporal's client."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Sequence
from uuid import uuid4

from temporalio.client import Client

from bench.peers.programs.load import serve
from bench.peers.programs.shapes import Shapes
from bench.peers.programs.steps import Step
from bench.peers.programs.temporal_worker import QUEUE, FanOut, Sleeper, Steps, ThreeSteps


async def main() -> None:
    client = await Client.connect(sys.argv[1])

    async def run() -> Sequence[Step]:
        return await client.execute_workflow(ThreeSteps.run, id=uuid4().hex, task_queue=QUEUE)

    async def sleeper(due: float) -> Awaitable[float]:
        return (await client.start_workflow(Sleeper.run, due, id=uuid4().hex, task_queue=QUEUE)).result()

    shapes = Shapes(
        fan_out=lambda children: client.execute_workflow(FanOut.run, children, id=uuid4().hex, task_queue=QUEUE),
        steps=lambda count: client.execute_workflow(Steps.run, count, id=uuid4().hex, task_queue=QUEUE),
        sleeper=sleeper,
    )
    await serve(run, shapes)


if __name__ == "__main__":
    asyncio.run(main())
