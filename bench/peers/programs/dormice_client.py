"""Our own client: it starts a run and waits for its end by a long poll."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bench.peers.programs.dormice_worker import three_steps
from bench.peers.programs.load import serve
from bench.peers.programs.steps import Step
from dormice.workflows import AsyncWorkflows


async def main() -> None:
    async with AsyncWorkflows() as client:

        async def run() -> Sequence[Step]:
            return await client.run(three_steps)

        await serve(run)


if __name__ == "__main__":
    asyncio.run(main())
