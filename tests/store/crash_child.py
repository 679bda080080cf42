"""A server that is going to be killed: it works as fast as it can and prints each answer it was given.

    python -m tests.store.crash_child DIRECTORY

prints `machine ORGANIZATION MACHINE`, then `created ID`, `output ID BYTES`, `ended ID`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from dormice.domain.execution import ExecutionEvent
from tests.store.conftest import open_sqlite
from tests.store.world import World, out, outcome

TEXT = bytes(range(251)) * 200
"""Output begins as this does, whatever its length."""


def say(*words: object) -> None:
    os.write(1, (" ".join(str(word) for word in words) + "\n").encode())


async def live(world: World) -> None:
    """Executions, one after the other, until the kill."""
    while True:
        execution = await world.claimed(env={"A": "secret"})
        say("created", execution.id)
        execution = await world.report(execution, started_at=world.tick())
        at = 0
        for size in (1, 100, 20_000):
            execution = await world.report(execution, chunks=[out(at, TEXT[at : at + size])])
            at += size
            say("output", execution.id, at)
        await world.report(execution, outcome=outcome(ExecutionEvent.SUCCEEDED, world.tick()))
        say("ended", execution.id)


async def main() -> None:
    world = await World.made(open_sqlite(Path(sys.argv[1])))
    say("machine", world.organization, world.machine.id)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(live(world))


asyncio.run(main())
