"""Restate's worker: a service that the server calls over HTTP/2."""

from __future__ import annotations

import asyncio
import sys

import hypercorn
import hypercorn.asyncio
import restate

from bench.peers.programs.steps import STEPS, Step, step

bench = restate.Service("bench")


@bench.handler()
async def three_steps(context: restate.Context, _: int) -> list[Step]:
    return [await context.run_typed(f"step-{number}", step, number=number) for number in STEPS]


def main() -> None:
    config = hypercorn.Config()
    config.bind = [sys.argv[1]]
    asyncio.run(hypercorn.asyncio.serve(restate.app([bench]), config))


if __name__ == "__main__":
    main()
