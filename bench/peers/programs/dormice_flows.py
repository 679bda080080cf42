"""Our own workflows of other shapes than three steps. Those that wait return the moment at which they went on."""

from __future__ import annotations

import time

from bench.peers.programs.steps import Step, step
from dormice.workflows import Context, workflow


async def one_step(number: int) -> Step:
    return step(number)


@workflow
async def child(_: Context, number: int) -> int:
    return number


@workflow
async def fan_out(ctx: Context, children: int) -> int:
    return sum(await ctx.gather(*(ctx.child(f"child-{number}", child, number) for number in range(children))))


@workflow
async def steps(ctx: Context, count: int) -> list[Step]:
    return [await ctx.step(f"step-{number}", one_step, number) for number in range(count)]


@workflow
async def sleeper(ctx: Context, due: float) -> float:
    """Sleep until a Unix time."""
    await ctx.sleep("sleep", max(0.0, due - time.time()))
    return time.time()


@workflow
async def sleeps(ctx: Context, seconds: float) -> float:
    await ctx.sleep("sleep", seconds)
    return time.time()


@workflow
async def hears(ctx: Context, topic: str) -> float:
    await ctx.event("event", topic)
    return time.time()


@workflow
async def ends(_: Context) -> float:
    return time.time()


@workflow
async def parent(ctx: Context) -> float:
    """Return how long after the last line of its child it went on."""
    ended = await ctx.child("child", ends)
    return time.time() - ended


@workflow
async def command(ctx: Context, machine_id: str) -> float:
    """Return how long after the recorded end of a command it went on."""
    done = await ctx.exec("true", machine_id, ["true"])
    went_on = time.time()
    if not done.succeeded or done.completed_at is None:
        raise ValueError(f"true has not succeeded: {done}")
    return went_on - done.completed_at.timestamp()


ALL = (child, fan_out, steps, sleeper, sleeps, hears, ends, parent, command)
