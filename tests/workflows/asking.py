"""Workflows that ask people, and that start by themselves."""

from __future__ import annotations

from msgspec import Struct

from dormice.workflows import Context, Event, Events, EventTimeout, Schedule, Trigger, workflow


class Answer(Struct):
    """What people say."""

    yes: bool


@workflow
async def asks(ctx: Context, word: str) -> bool:
    answer = await ctx.suspend("ask", {"word": word}, returns=Answer)
    return answer.yes


@workflow
async def asks_in_vain(ctx: Context) -> str:
    try:
        await ctx.suspend("ask", timeout=0.01)
    except EventTimeout as error:
        return str(error)
    return "answered"


@workflow
async def asks_twice(ctx: Context) -> list[object]:
    """At once, beside a child that asks in the same words."""
    both = ctx.gather(ctx.suspend("first"), ctx.suspend("second"), ctx.child("child", asks, "below"))
    return list(await both)


@workflow
async def asks_below(ctx: Context) -> list[bool]:
    """By two children that ask in the same words, at steps of the same name."""
    return list(await ctx.gather(ctx.child("a", asks, "below"), ctx.child("b", asks, "below")))


@workflow
async def listens(ctx: Context, topic: str) -> list[object]:
    """Alone, then for two at once."""
    first = await ctx.event("first", topic, timeout=60)
    both = await ctx.gather(ctx.event("z", topic, timeout=60), ctx.event("a", topic, timeout=60))
    return [first, *both]


@workflow(trigger="single")
async def one(_ctx: Context, event: Event) -> object:
    return [event.topic, event.event_type, event.data]


@workflow(trigger=Trigger("several", batch_size=2, batch_timeout=60))
async def pair(_ctx: Context, events: Events) -> list[object]:
    return [event.data for event in events.events]


@workflow(schedule=Schedule("0 8 29 2 *", "Europe/Vienna", key="leap", catch_up="one", overlap=True))
async def rare(_ctx: Context) -> None:
    return None


@workflow(schedule="61 * * * *")
async def never(_ctx: Context) -> None:
    return None
