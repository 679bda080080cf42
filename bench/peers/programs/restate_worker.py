"""Restate's worker: a service that the server calls over HTTP/2."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta

import hypercorn
import hypercorn.asyncio
import restate

from bench.peers.programs.steps import STEPS, Step, step

bench = restate.Service("bench")


@bench.handler()
async def three_steps(context: restate.Context, _: int) -> list[Step]:
    return [await context.run_typed(f"step-{number}", step, number=number) for number in STEPS]


@bench.handler()
async def child(_: restate.Context, number: int) -> int:
    return number


@bench.handler()
async def fan_out(context: restate.Context, children: int) -> int:
    calls = [context.service_call(child, arg=number) for number in range(children)]
    return sum([await call for call in await restate.gather(*calls)])


@bench.handler()
async def steps(context: restate.Context, count: int) -> list[Step]:
    return [await context.run_typed(f"step-{number}", step, number=number) for number in range(count)]


@bench.handler()
async def sleeper(context: restate.Context, due: float) -> float:
    await context.sleep(timedelta(seconds=max(0.0, due - time.time())))
    return time.time()


def main() -> None:
    config = hypercorn.Config()
    config.bind = [sys.argv[1]]
    asyncio.run(hypercorn.asyncio.serve(restate.app([bench]), config))


if __name__ == "__main__":
    main()
