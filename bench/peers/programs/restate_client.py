"""Restate's client, at the server's ingress."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import restate

from bench.peers.programs.load import serve
from bench.peers.programs.restate_worker import three_steps
from bench.peers.programs.steps import Step


async def main() -> None:
    async with restate.create_client(sys.argv[1]) as client:

        async def run() -> Sequence[Step]:
            return await client.service_call(three_steps, arg=0)

        await serve(run)


if __name__ == "__main__":
    asyncio.run(main())
