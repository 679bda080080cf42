"""The load generator: told what to do by lines of JSON on standard input, it answers with lines on standard output."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bench.peers.programs.shapes import Shapes, measure
from bench.peers.programs.steps import STEPS, Step

Run = Callable[[], Awaitable[Sequence[Step]]]
"""Submits a workflow, waits for its end and returns what its steps returned."""

DRAIN_SECONDS = 60.0
"""How long the last workflows may take after no more are submitted."""
_NONE = Shapes()


async def serve(run: Run, shapes: Shapes = _NONE) -> None:
    """Say that we are ready, then do what is asked until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    print(json.dumps({"ready": True}), file=answers, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            answer = await _do(run, shapes, json.loads(line))
        except Exception as error:  # noqa: BLE001 - whoever asked is told, and decides
            answer = {"error": _said(error)}
        print(json.dumps(answer), file=answers, flush=True)


async def _do(run: Run, shapes: Shapes, order: dict[str, Any]) -> dict[str, Any]:
    async with asyncio.timeout(order["seconds"] + DRAIN_SECONDS):
        if order["do"] == "shape":
            return {"seconds": await measure(shapes, order["name"], order["amount"])}
        if order["do"] == "throughput":
            return await _throughput(run, order["in_flight"], order["seconds"])
        return await _latencies(run, order["rate"], order["seconds"])


async def _throughput(run: Run, in_flight: int, seconds: float) -> dict[str, Any]:
    """A closed loop: each lane submits its next workflow when its last has ended. All that was submitted counts."""
    began = time.monotonic()

    async def lane() -> int:
        runs = 0
        while time.monotonic() - began < seconds:
            _check(await run())
            runs += 1
        return runs

    async with asyncio.TaskGroup() as group:
        lanes = [group.create_task(lane()) for _ in range(in_flight)]
    return {"runs": sum(lane.result() for lane in lanes), "seconds": time.monotonic() - began}


async def _latencies(run: Run, rate: float, seconds: float) -> dict[str, Any]:
    """An open loop: a workflow is submitted at each tick, ended or not. The clock starts at the tick, not when we come to it."""
    first_step: list[float] = []
    end: list[float] = []

    async def one(tick: float) -> None:
        steps = await run()
        end.append(time.monotonic() - tick)
        first_step.append(_check(steps) - tick)

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            tick = began + number / rate
            await asyncio.sleep(tick - time.monotonic())
            group.create_task(one(tick))
    return {"first_step": first_step, "end": end}


def _check(steps: Sequence[Step]) -> float:
    """Return when the first step ran. Raises ValueError if not every step ran in its turn."""
    if [int(step["step"]) for step in steps] != list(STEPS):
        raise ValueError(f"not the three steps: {steps}")
    return steps[0]["at"]


def _said(error: BaseException) -> str:
    """Return what was wrong, in one line: of a group its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"workflows have not ended {DRAIN_SECONDS:.0f} s after the last was submitted"
    return f"{type(error).__name__}: {error}".splitlines()[0]
