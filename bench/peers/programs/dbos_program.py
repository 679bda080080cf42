"""DBOS is a library: its worker and its client are one process."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Sequence

from dbos import DBOS, DBOSConfig

from bench.peers.programs.load import serve
from bench.peers.programs.shapes import Shapes
from bench.peers.programs.steps import STEPS, Step, step


@DBOS.step()
async def run_step(number: int) -> Step:
    return step(number)


@DBOS.workflow()
async def three_steps() -> list[Step]:
    return [await run_step(number) for number in STEPS]


@DBOS.workflow()
async def child(number: int) -> int:
    return number


@DBOS.workflow()
async def fan_out(children: int) -> int:
    handles = [await DBOS.start_workflow_async(child, number) for number in range(children)]
    return sum([await handle.get_result() for handle in handles])


@DBOS.workflow()
async def steps(count: int) -> list[Step]:
    return [await run_step(number) for number in range(count)]


@DBOS.workflow()
async def sleep_until(due: float) -> float:
    await DBOS.sleep_async(max(0.0, due - time.time()))
    return time.time()


async def sleeper(due: float) -> Awaitable[float]:
    return (await DBOS.start_workflow_async(sleep_until, due)).get_result()


async def run() -> Sequence[Step]:
    handle = await DBOS.start_workflow_async(three_steps)
    return await handle.get_result()


async def main() -> None:
    config: DBOSConfig = {"name": "bench", "system_database_url": sys.argv[1], "log_level": "WARNING"}
    DBOS(config=config)
    DBOS.launch()
    await serve(run, Shapes(fan_out=fan_out, steps=steps, sleeper=sleeper))
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())
