"""Absurd's client. It learns of the end of all that is in flight by one query, often: `await_task_result` polls each task by itself,
50 ms after the last time and then less and less often."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Sequence
from typing import Any
from uuid import UUID

import psycopg
from absurd_sdk import AsyncAbsurd

from bench.peers.programs.absurd_worker import MANY, POLL_SECONDS, QUEUE, SLEEPER, TASK
from bench.peers.programs.load import serve
from bench.peers.programs.shapes import Shapes
from bench.peers.programs.steps import Step

ENDED = f"SELECT task_id, completed_payload FROM absurd.t_{QUEUE} WHERE task_id = ANY(%s) AND state = 'completed'"


async def main() -> None:
    waiting: dict[UUID, asyncio.Future[Any]] = {}
    client = AsyncAbsurd(sys.argv[1], queue_name=QUEUE)
    await client.create_queue(QUEUE)

    async def run() -> Sequence[Step]:
        return await (await start(TASK, {}))

    async def steps(count: int) -> Sequence[Step]:
        return await (await start(MANY, count))

    async def start(name: str, given: object) -> Awaitable[Any]:
        task = await client.spawn(name, given, queue=QUEUE)
        return result(UUID(str(task["task_id"])))

    async def result(task_id: UUID) -> Any:
        ended = waiting[task_id] = asyncio.get_running_loop().create_future()
        return await ended

    async def watch() -> None:
        async with await psycopg.AsyncConnection.connect(sys.argv[1], autocommit=True) as connection:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                if waiting:
                    rows = await connection.execute(ENDED, (list(waiting),))
                    async for task_id, payload in rows:
                        waiting.pop(task_id).set_result(payload)

    watching = asyncio.create_task(watch())
    await serve(run, Shapes(steps=steps, sleeper=lambda due: start(SLEEPER, due)))
    watching.cancel()
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
