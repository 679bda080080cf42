"""DBOS is a library: its worker and its client are one process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from dbos import DBOS, DBOSConfig

from bench.peers.programs.load import serve
from bench.peers.programs.steps import STEPS, Step, step


@DBOS.step()
async def run_step(number: int) -> Step:
    return step(number)


@DBOS.workflow()
async def three_steps() -> list[Step]:
    return [await run_step(number) for number in STEPS]


async def run() -> Sequence[Step]:
    handle = await DBOS.start_workflow_async(three_steps)
    return await handle.get_result()


async def main() -> None:
    config: DBOSConfig = {"name": "bench", "system_database_url": sys.argv[1], "log_level": "WARNING"}
    DBOS(config=config)
    DBOS.launch()
    await serve(run)
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())
