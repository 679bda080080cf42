"""Workflows of other shapes than three steps: what a client says how to start, and what is measured of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bench.peers.programs.steps import Step

LANES = 64
"""Sleepers that are submitted, or asked for their results, at once."""
REHEARSED = 20
"""One of so many sleepers is run before, to learn how long it takes until all sleep."""
CAUTION = 2.0
"""So much more time they are given, because a host may become busy."""
PATIENCE = 180.0
"""Seconds that it may take until all sleep, or they are not tried."""
SLACK = 3.0
"""Seconds between the moment at which all should sleep and the first at which one is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """What a system can be asked for besides three steps; None: not that."""

    fan_out: Callable[[int], Awaitable[int]] | None = None
    """Run a workflow that has so many children at once, each of which returns its number; return the sum of these."""
    steps: Callable[[int], Awaitable[Sequence[Step]]] | None = None
    """Run a workflow of so many steps, one after another, and return what they returned."""
    sleeper: Callable[[float], Awaitable[Awaitable[float]]] | None = None
    """Start a workflow that sleeps until a Unix time; return what waits for its end and gives the time at which it went on."""


async def measure(shapes: Shapes, name: str, amount: int) -> Sequence[float]:
    """Return seconds. Raises ValueError when the system is not asked for that here, or has given a wrong answer."""
    if name == "fan_out" and shapes.fan_out:
        return [await _fan_out(shapes.fan_out, amount)]
    if name == "one_run" and shapes.steps:
        return await _steps(shapes.steps, amount)
    if name == "many_runs" and shapes.steps:
        return [(await _steps(shapes.steps, 1))[-1] for _ in range(amount)]
    if name == "sleepers" and shapes.sleeper:
        return await _sleepers(shapes.sleeper, amount)
    raise ValueError("not measured of this system")


async def _fan_out(run: Callable[[int], Awaitable[int]], children: int) -> float:
    """Return the time from submission to the result."""
    began = time.monotonic()
    total = await run(children)
    if total != sum(range(children)):
        raise ValueError(f"{children} children have returned {total} in all")
    return time.monotonic() - began


async def _steps(run: Callable[[int], Awaitable[Sequence[Step]]], count: int) -> list[float]:
    """Return when each step was run, and last when the result was there, from submission on."""
    began = time.monotonic()
    steps = await run(count)
    if [int(step["step"]) for step in steps] != list(range(count)):
        raise ValueError(f"not the {count} steps: {steps}")
    return [step["at"] - began for step in steps] + [time.monotonic() - began]


async def _sleepers(start: Callable[[float], Awaitable[Awaitable[float]]], count: int) -> list[float]:
    """Start workflows that are due one after another within one second; return how late each went on."""
    began = time.monotonic()
    few = max(1, count // REHEARSED)
    await _woken(await _asleep(start, [time.time()] * few))
    lead = CAUTION * (time.monotonic() - began) * count / few + SLACK
    if lead > PATIENCE:
        raise ValueError(f"it would take up to {lead:.0f} s until all {count} sleep")
    first = time.time() + lead
    due = [first + number / count for number in range(count)]
    sleeping = await _asleep(start, due)
    if time.time() > first:
        raise ValueError(f"{count} workflows took longer to be submitted than they were to sleep")
    return [woke - moment for woke, moment in zip(await _woken(sleeping), due, strict=True)]


async def _asleep(
    start: Callable[[float], Awaitable[Awaitable[float]]], due: Sequence[float]
) -> list[Awaitable[float]]:
    lanes = asyncio.Semaphore(LANES)

    async def one(moment: float) -> Awaitable[float]:
        async with lanes:
            return await start(moment)

    return await asyncio.gather(*(one(moment) for moment in due))


async def _woken(sleeping: Sequence[Awaitable[float]]) -> list[float]:
    """Wait for the last one first: who waits for all of them meanwhile is a load of its own."""
    last = await sleeping[-1]
    lanes = asyncio.Semaphore(LANES)

    async def result(one: Awaitable[float]) -> float:
        async with lanes:
            return await one

    return [*await asyncio.gather(*map(result, sleeping[:-1])), last]
