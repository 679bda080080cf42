"""Our own client: it starts a run and waits for its end by a long poll."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from bench.peers.programs import dormice_flows as flows
from bench.peers.programs.dormice_worker import three_steps
from bench.peers.programs.load import serve
from bench.peers.programs.shapes import Shapes
from bench.peers.programs.steps import Step
from dormice.workflows import AsyncWorkflows


async def main() -> None:
    async with AsyncWorkflows() as client:

        async def run() -> Sequence[Step]:
            return await client.run(three_steps)

        async def sleeper(due: float) -> Awaitable[float]:
            return _woken(await client.start(flows.sleeper, due))

        async def _woken(run_id: str) -> float:
            return float((await client.wait(run_id)).result)

        shapes = Shapes(
            fan_out=lambda children: client.run(flows.fan_out, children),
            steps=lambda count: client.run(flows.steps, count),
            sleeper=sleeper,
        )
        await serve(run, shapes)


if __name__ == "__main__":
    asyncio.run(main())
