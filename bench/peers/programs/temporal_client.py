"""Temporal's client."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from uuid import uuid4

from temporalio.client import Client

from bench.peers.programs.load import serve
from bench.peers.programs.steps import Step
from bench.peers.programs.temporal_worker import QUEUE, ThreeSteps


async def main() -> None:
    client = await Client.connect(sys.argv[1])

    async def run() -> Sequence[Step]:
        return await client.execute_workflow(ThreeSteps.run, id=uuid4().hex, task_queue=QUEUE)

    await serve(run)


if __name__ == "__main__":
    asyncio.run(main())
