"""Workflows that tell of themselves, that publish, and that are tried again."""

from __future__ import annotations

import time
from pathlib import Path

from dormice.workflows import Context, Event, NonRetryable, Retry, Trigger, workflow
from tests.workflows.flows import Place, add, mark


@workflow(events=True)
async def tells(ctx: Context, number: int) -> int:
    """Run again from its start after a pause, and after a failure."""
    one = await ctx.step("one", add, number, 1)
    await ctx.sleep("rest", 0.01)
    if ctx.retry_count == 0:
        raise ValueError("once")
    try:
        await ctx.step("bad", _refuse)
    except NonRetryable:
        one = await ctx.child("child", tells_below, one)
    return one


async def _refuse() -> None:
    raise NonRetryable("no")


@workflow(events=True)
async def tells_below(_ctx: Context, number: int) -> int:
    return number


@workflow(events=True)
async def takes_the_key_of_the_start(ctx: Context) -> int:
    return await ctx.step("publish_start", add, 1, 1)


@workflow
async def silent(ctx: Context) -> int:
    return await ctx.step("one", add, 1, 1)


@workflow
async def publishes(ctx: Context, place: Place) -> int:
    """Publish at the start of both of its attempts, and after a pause."""
    mark(place, "started")
    await ctx.publish("told", f"told{place.directory}", {"n": 1}, event_type="number")
    await ctx.sleep("rest", 0.01)
    await ctx.publish("own", None, event_type="progress")
    await ctx.gather(ctx.publish("third", "started by code", 3), ctx.step("step", add, 1, 1))
    if ctx.retry_count == 0:
        raise ValueError("once")
    return ctx.retry_count


@workflow
async def awaits(ctx: Context, topic: str) -> object:
    return await ctx.event("it", topic)


@workflow(trigger=Trigger("started by code"))
async def triggered(_ctx: Context, event: Event) -> object:
    return event.data


async def _fail(ctx: Context, place: Place) -> None:
    with (Path(place.directory) / "times").open("a") as file:
        file.write(f"{time.monotonic()}\n")
    raise ValueError(f"attempt {ctx.retry_count}")


@workflow(retry=Retry(attempts=4, first_pause=0.6, factor=2, longest_pause=0.8))
async def stubborn(ctx: Context, place: Place) -> None:
    await _fail(ctx, place)


@workflow(retry=Retry(attempts=6, first_pause=3_600, longest_pause=0))
async def hasty(ctx: Context, place: Place) -> None:
    await _fail(ctx, place)


@workflow(retry=Retry(attempts=1))
async def faint(ctx: Context, place: Place) -> None:
    await _fail(ctx, place)


@workflow
async def parent_of_hasty(ctx: Context, place: Place) -> str:
    try:
        await ctx.child("child", hasty, place)
    except NonRetryable as error:
        return str(error)
    return ""
