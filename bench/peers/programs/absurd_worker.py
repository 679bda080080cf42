"""Absurd's worker, which claims tasks from PostgreSQL."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from absurd_sdk import AsyncAbsurd, AsyncTaskContext

from bench.peers.programs.steps import STEPS, Step, step

QUEUE = "bench"
TASK = "three-steps"
MANY = "steps"
SLEEPER = "sleeper"
LOOPS = 2
CLAIMS = 32
POLL_SECONDS = 0.01


async def three_steps(_: object, context: AsyncTaskContext) -> list[Step]:
    return [await context.step(f"step-{number}", _action(number)) for number in STEPS]


async def steps(count: int, context: AsyncTaskContext) -> list[Step]:
    return [await context.step(f"step-{number}", _action(number)) for number in range(count)]


async def sleeper(due: float, context: AsyncTaskContext) -> float:
    await context.sleep_until("sleep", due)
    return time.time()


def _action(number: int) -> Callable[[], Awaitable[Step]]:
    async def run_step() -> Step:
        return step(number)

    return run_step


async def main() -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(LOOPS):
            worker = AsyncAbsurd(sys.argv[1], queue_name=QUEUE)
            worker.register_task(TASK)(three_steps)
            worker.register_task(MANY)(steps)
            worker.register_task(SLEEPER)(sleeper)
            group.create_task(worker.start_worker(f"loop-{number}", concurrency=CLAIMS, poll_interval=POLL_SECONDS))


if __name__ == "__main__":
    asyncio.run(main())
