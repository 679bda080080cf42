"""Workflows that tests run on workers of their own processes. What really happens is marked in a directory that the payload names."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from dormice.workflows import Context, NonRetryable, Queue, Retry, workflow
from tests.wait import PAUSE_SECONDS, others_run, wait_until, wait_until_async

LONGEST = 60


class Place(Struct):
    """Where a run leaves its marks."""

    directory: str
    count: int = 0


@dataclass
class Receipt:
    cents: int
    by: str


def mark(place: Place, name: str) -> None:
    with (Path(place.directory) / name).open("a") as file:
        file.write(f"{os.getpid()}\n")


async def add(first: int, second: int) -> int:
    return first + second


async def marked(place: Place, name: str) -> str:
    mark(place, name)
    return name


def on_a_thread(place: Place, cents: int) -> Receipt:
    mark(place, "thread")
    return Receipt(cents, "card")


async def until_open(place: Place, name: str) -> str:
    """Wait for the file `open`."""
    mark(place, name)
    await wait_until_async(lambda: _exists(place, "open"), LONGEST, "opened")
    mark(place, f"{name}-done")
    return name


async def _exists(place: Place, name: str) -> bool:
    return (Path(place.directory) / name).exists()


def thread_until_open(place: Place) -> str:
    mark(place, "thread")
    wait_until((Path(place.directory) / "open").exists, LONGEST, "opened")
    mark(place, "thread-done")
    return "done"


@workflow
async def three_steps(ctx: Context, number: int) -> int:
    one = await ctx.step("one", add, number, 1)
    two = await ctx.step("two", add, one, 1)
    return await ctx.step("three", add, two, 1)


@workflow
async def everything(ctx: Context, place: Place) -> dict[str, object]:
    mark(place, "started")
    receipt = await ctx.step("pay", on_a_thread, place, 100)
    moment = await ctx.now("when")
    await ctx.sleep("rest", 0.05)
    data = await ctx.event("paid", f"order/{ctx.run_id}", returns=Receipt)
    child = await ctx.child("child", three_steps, 10)
    return {
        "receipt": receipt.cents,
        "data": data.by,
        "child": child,
        "same": [str(ctx.uuid("u")), ctx.random("r").random(), moment.isoformat()],
    }


@workflow
async def family(ctx: Context, place: Place) -> list[int]:
    mark(place, "started")
    children = await ctx.gather(*(ctx.child(f"child {n}", three_steps, n) for n in range(place.count)))
    return list(children)


@workflow
async def mixed(ctx: Context, place: Place) -> list[object]:
    mark(place, "started")
    results = await ctx.gather(
        ctx.step("step", marked, place, "step"),
        ctx.event("event", f"mixed/{ctx.run_id}", returns=int),
        ctx.child("child", three_steps, 1),
        ctx.sleep("sleep", 0.05),
    )
    return list(results)


@workflow(timeout=7)
async def bounded(_ctx: Context) -> None:
    """Has a timeout."""


@workflow
async def impatient(ctx: Context) -> str:
    try:
        await ctx.event("never", "never", timeout=0.05)
    except TimeoutError as error:
        return str(error)
    return "it came"


@workflow
async def same_key(ctx: Context) -> int:
    await ctx.step("same", add, 1, 1)
    return await ctx.step("same", add, 2, 2)


async def _refuse(place: Place, kind: str) -> None:
    mark(place, kind)
    raise (NonRetryable if kind == "final" else ValueError)(f"{kind} failure")


@workflow
async def failing_step(ctx: Context, place: Place) -> str:
    retry = Retry(attempts=3, first_pause=0.001)
    try:
        await ctx.step("first", _refuse, place, "common", retry=retry)
    except NonRetryable as error:
        await ctx.sleep("rest", 0.01)
        await ctx.step("second", _refuse, place, "final", retry=retry)
        return str(error)
    return ""


@workflow
async def failing(ctx: Context, place: Place) -> int:
    mark(place, "started")
    await ctx.step("once", marked, place, "once")
    if ctx.retry_count < place.count:
        raise ValueError(f"attempt {ctx.retry_count}")
    return ctx.retry_count


@workflow
async def failing_child(ctx: Context, place: Place) -> str:
    try:
        await ctx.child("child", "no such workflow", {"x": 1})
    except NonRetryable as error:
        return str(error)
    return ""


@workflow
async def not_as_annotated(ctx: Context, place: Place) -> Receipt:
    mark(place, "started")
    return {"cents": "many", "by": "me"}  # type: ignore[return-value]


@workflow
async def not_json(ctx: Context) -> object:
    return {1, object()}


@workflow
async def awaits_too_little(ctx: Context) -> int:
    ctx.step("one", add, 1, 1)  # type: ignore[unused-coroutine]
    await ctx.step("two", add, 1, 1)
    ctx.sleep("rest", 0)  # type: ignore[unused-coroutine]
    return 1


@workflow(retry=Retry(attempts=1))
async def reckons_with_what_it_does_not_await(ctx: Context) -> int:
    return ctx.step("one", add, 1, 1) + 1  # type: ignore[operator]


@workflow
async def awaits_late_or_cancels(ctx: Context) -> int:
    late = ctx.step("late", add, 1, 1)
    never = asyncio.create_task(ctx.step("never", add, 1, 1))
    never.cancel()
    await asyncio.wait([never])
    await ctx.sleep("rest", 0.01)
    return await late


@workflow
async def holds_the_loop(ctx: Context, place: Place) -> int:
    """Twice: in a step beside another one, and in the function itself."""
    await ctx.gather(ctx.step("one", add, 1, 1), ctx.step("two", _block, place, "first"))
    return await _block(place, "second")


async def _block(place: Place, name: str) -> int:
    mark(place, name)
    wait_until((Path(place.directory) / f"after {name}").exists, LONGEST, name)
    return 1


@workflow
async def held(ctx: Context, place: Place) -> list[str]:
    """Two steps that wait for the file `open`, with marks before and after."""
    first = await ctx.step("before", marked, place, "before")
    try:
        second = await ctx.step("held", until_open, place, "held")
    except asyncio.CancelledError:
        mark(place, "cancelled")
        raise
    return [first, second, await ctx.step("after", marked, place, "after")]


@workflow
async def held_thread(ctx: Context, place: Place) -> str:
    return await ctx.step("thread", thread_until_open, place)


@workflow(queue=Queue("narrow", 1))
async def narrow(ctx: Context, place: Place) -> int:
    return await ctx.step("alone", _alone, place)


async def _alone(place: Place) -> int:
    """Fail when another one is here."""
    path = Path(place.directory) / "alone"
    path.touch(exist_ok=False)
    until = time.monotonic() + 0.02
    while time.monotonic() < until:
        await others_run(PAUSE_SECONDS)
    path.unlink()
    return 1


@workflow
async def parent_of_held(ctx: Context, place: Place) -> list[str]:
    return await ctx.child("child", held, place)


@workflow
async def side_by_side(ctx: Context, place: Place) -> list[object]:
    """One branch waits while a step of another one is still run, in the plain way of asyncio."""
    mark(place, "started")
    return list(await asyncio.gather(ctx.sleep("sleep", 0.01), ctx.step("held", until_open, place, "held")))


@workflow
async def commands(ctx: Context, machine_id: str) -> list[object]:
    """Two commands and a moment, waited for together; then one that fails."""
    first, second, _ = await ctx.gather(
        ctx.exec("first", machine_id, ["sh", "-c", 'echo "$NAME"; cat'], env={"NAME": "x"}, stdin="yz"),
        ctx.exec("second", machine_id, ["sh", "-c", "exit 3"]),
        ctx.sleep("sleep", 0.01),
    )
    third = await ctx.exec("third", machine_id, ["sh", "-c", "kill -9 $$"], timeout=50)
    return [first.succeeded, first.stdout_bytes, second.exit_code, third.signal, first.execution_id]


@workflow
async def command_that_lasts(ctx: Context, machine_id: str) -> str:
    return (await ctx.exec("lasts", machine_id, ["sleep", "1000"])).status


@workflow
async def command_of(ctx: Context, machine_and_script: list[str]) -> int | None:
    machine_id, script = machine_and_script
    return (await ctx.exec("only", machine_id, ["sh", "-c", script])).exit_code
