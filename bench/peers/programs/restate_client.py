"""Restate's client, at the server's ingress."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Sequence
from uuid import uuid4

import httpx
import restate

from bench.peers.programs.load import serve
from bench.peers.programs.restate_worker import fan_out, sleeper, steps, three_steps
from bench.peers.programs.shapes import Shapes
from bench.peers.programs.steps import Step


async def main() -> None:
    async with restate.create_client(sys.argv[1]) as client, httpx.AsyncClient() as http:

        async def run() -> Sequence[Step]:
            return await client.service_call(three_steps, arg=0)

        async def start_sleeper(due: float) -> Awaitable[float]:
            # Without a key of its own its result would be forgotten at once.
            started = await client.service_send(sleeper, arg=due, idempotency_key=uuid4().hex)
            return woken(started.invocation_id)

        async def woken(invocation: str) -> float:
            answer = await http.get(f"{sys.argv[1]}/restate/invocation/{invocation}/attach", timeout=None)
            return float(answer.raise_for_status().json())

        shapes = Shapes(
            fan_out=lambda children: client.service_call(fan_out, arg=children),
            steps=lambda count: client.service_call(steps, arg=count),
            sleeper=start_sleeper,
        )
        await serve(run, shapes)


if __name__ == "__main__":
    asyncio.run(main())
