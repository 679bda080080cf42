# mypy: ignore-errors
# No `from __future__ import annotations`: the SDK looks at the annotations of a workflow's parameters.
"""Our workflows in the foreign SDK: small ones, each of which does one thing that the server must serve."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from typing import Any

from polos import (
    BatchWorkflowInput,
    HookContext,
    HookResult,
    StepExecutionError,
    WorkflowContext,
    WorkflowState,
    hook,
    queue,
    workflow,
)
from pydantic import BaseModel

from tests.conformance.workflows import marks
from tests.wait import others_run


def note(ctx: WorkflowContext, what: str, value: Any = None, **more: Any) -> Any:
    """Write into the diary that this run came here, and return `value`."""
    marks.note(ctx.execution_id, what, parent=ctx.parent_execution_id, attempt=ctx.retry_count, **more)
    return value


# Plain runs, failures, retries.


@workflow(id="plain")
async def plain(ctx: WorkflowContext) -> int:
    note(ctx, "ran")
    return 42


@workflow(id="echo")
async def echo(ctx: WorkflowContext, payload: dict) -> Any:
    note(ctx, "ran", mark=payload.get("mark"))
    return payload["value"]


@workflow(id="about_me")
async def about_me(ctx: WorkflowContext) -> dict:
    names = ["workflow_id", "execution_id", "deployment_id", "parent_execution_id", "root_execution_id"]
    names += ["root_workflow_id", "session_id", "user_id", "retry_count"]
    return {name: getattr(ctx, name) for name in names} | {"created_at": ctx.created_at.isoformat()}


@workflow(id="fails_each_time")
async def fails_each_time(ctx: WorkflowContext) -> None:
    await ctx.step.run("s1", note, ctx, "s1")
    note(ctx, "attempt")
    raise RuntimeError(f"attempt {ctx.retry_count + 1} failed")


@workflow(id="fails_at_first")
async def fails_at_first(ctx: WorkflowContext, payload: dict) -> dict:
    made = [await ctx.step.uuid("uuid"), await ctx.step.now("now"), await ctx.step.random("random")]
    value = await ctx.step.run("s1", note, ctx, "s1", 7)
    note(ctx, "attempt", made=made)
    if ctx.retry_count < payload["times"]:
        raise RuntimeError("not yet")
    return {"value": value, "made": made}


def refuse(message: str) -> None:
    raise ValueError(message)


@workflow(id="bad_step")
async def bad_step(ctx: WorkflowContext) -> None:
    note(ctx, "attempt")
    await ctx.step.run("bad", refuse, "bad step", max_retries=0, base_delay=0)


@workflow(id="step_retried")
async def step_retried(ctx: WorkflowContext) -> str:
    tries = []

    def third_time_lucky() -> str:
        tries.append(1)
        note(ctx, "try")
        if len(tries) < 3:
            raise ValueError("not yet")
        return "lucky"

    return await ctx.step.run("s", third_time_lucky, max_retries=2, base_delay=0)


@workflow(id="unserialisable")
async def unserialisable(ctx: WorkflowContext) -> set:
    note(ctx, "attempt")
    return {1}


@workflow(id="steps_named")
async def steps_named(ctx: WorkflowContext, payload: dict) -> list:
    """A step for each key, then a failure: the second attempt must find every step."""
    values = [await ctx.step.run(key, note, ctx, "step", f"<{key}>", key=key) for key in payload["keys"]]
    if ctx.retry_count == 0:
        raise RuntimeError("again")
    return values


@workflow(id="falsy_steps")
async def falsy_steps(ctx: WorkflowContext) -> None:
    for name, value in {"zero": 0, "false": False, "text": "", "list": [], "object": {}, "null": None}.items():
        await ctx.step.run(name, lambda value=value: value)


class Line(BaseModel):
    article: str
    pieces: int


class Order(BaseModel):
    customer: str
    lines: list[Line]


class Receipt(BaseModel):
    order: Order
    total: int
    at: datetime


@workflow(id="receipt")
async def receipt(ctx: WorkflowContext, payload: Order) -> Receipt:
    fee = await ctx.step.run("fee", Line, article="fee", pieces=1)
    total = fee.pieces + sum(line.pieces for line in payload.lines)
    return Receipt(order=payload, total=total, at=datetime(2026, 1, 2, tzinfo=UTC))


@workflow(id="receipt_twice")
async def receipt_twice(ctx: WorkflowContext, payload: Order) -> dict:
    """A child's Pydantic result comes back as its class, also on replay."""
    child = await ctx.step.invoke_and_wait("child", receipt, payload)
    again = await ctx.step.invoke_and_wait("again", receipt, payload)
    return {"kinds": [type(child).__name__, type(again).__name__], "total": child.total + again.total}


class Count(WorkflowState):
    n: int = 0


@workflow(id="counts", state_schema=Count)
async def counts(ctx: WorkflowContext, payload: dict) -> int:
    ctx.state.n += payload["by"]
    return ctx.state.n


@hook
def doubles(ctx: WorkflowContext, hook_context: HookContext) -> HookResult:
    return HookResult.continue_with(modified_payload={"value": hook_context.current_payload["value"] * 2})


@workflow(id="hooked", on_start=doubles)
async def hooked(ctx: WorkflowContext, payload: dict) -> int:
    return payload["value"]


# Children.


@workflow(id="doubles_value")
async def doubles_value(ctx: WorkflowContext, payload: dict) -> dict:
    note(ctx, "child", number=payload["value"])
    return {"doubled": payload["value"] * 2}


@workflow(id="parent_of")
async def parent_of(ctx: WorkflowContext, payload: dict) -> Any:
    note(ctx, "dispatched")
    return await ctx.step.invoke_and_wait("child", payload["child"], payload.get("payload"))


@workflow(id="parent_catches")
async def parent_catches(ctx: WorkflowContext, payload: dict) -> str:
    try:
        await ctx.step.invoke_and_wait("child", payload["child"], payload.get("payload"))
    except StepExecutionError as error:
        return f"caught: {error}"
    return "nothing to catch"


@workflow(id="batch")
async def batch(ctx: WorkflowContext, payload: dict) -> list:
    note(ctx, "dispatched")
    inputs = [BatchWorkflowInput(id=name, payload=value) for name, value in payload["children"]]
    results = await ctx.step.batch_invoke_and_wait("batch", inputs)
    return [result.model_dump(mode="json") for result in results]


@workflow(id="gathers")
async def gathers(ctx: WorkflowContext) -> list:
    return await asyncio.gather(
        ctx.step.invoke_and_wait("a", doubles_value, {"value": 1}),
        ctx.step.invoke_and_wait("b", doubles_value, {"value": 2}),
    )


@workflow(id="gathers_unlike")
async def gathers_unlike(ctx: WorkflowContext, payload: dict) -> list:
    """Waits of four kinds at once."""
    timer, child, event, answer = await asyncio.gather(
        ctx.step.wait_for("timer", seconds=1),
        ctx.step.invoke_and_wait("child", doubles_value, {"value": 4}),
        ctx.step.wait_for_event("event", payload["topic"]),
        ctx.step.suspend("answer", {"ask": "?"}),
    )
    return [timer, child, event.data, answer["data"]]


@workflow(id="sequence")
async def sequence(ctx: WorkflowContext, payload: dict) -> int:
    results = [await ctx.step.invoke_and_wait(f"c{n}", doubles_value, {"value": n}) for n in range(payload["n"])]
    return sum(result["doubled"] for result in results)


@workflow(id="tree")
async def tree(ctx: WorkflowContext, payload: dict) -> list:
    """A child of a child of …: each level adds what it knows about itself."""
    depth = payload["depth"]
    below = [] if depth == 0 else await ctx.step.invoke_and_wait("below", "tree", {"depth": depth - 1})
    return [
        {"run": ctx.execution_id, "root": ctx.root_execution_id, "session": ctx.session_id, "user": ctx.user_id},
        *below,
    ]


@workflow(id="fires")
async def fires(ctx: WorkflowContext) -> list:
    one = await ctx.step.invoke("one", doubles_value, {"value": 1})
    inputs = [BatchWorkflowInput(id="doubles_value", payload={"value": n}) for n in (2, 3)]
    more = await ctx.step.batch_invoke("more", inputs)
    if ctx.retry_count == 0:
        raise RuntimeError("again: children that were fired are not fired twice")
    return [handle.id for handle in [one, *more]]


# Waits.


@workflow(id="sleeps")
async def sleeps(ctx: WorkflowContext, payload: dict) -> str:
    note(ctx, "dispatched")
    await ctx.step.wait_for("nap", seconds=payload["seconds"])
    return "rested"


@workflow(id="sleeps_until")
async def sleeps_until(ctx: WorkflowContext, payload: dict) -> str:
    now = datetime.fromtimestamp(await ctx.step.now("now") / 1000, UTC)
    await ctx.step.wait_until("nap", now + timedelta(seconds=payload["seconds"]))
    return "rested"


@workflow(id="awaits_event")
async def awaits_event(ctx: WorkflowContext, payload: dict) -> dict:
    note(ctx, "dispatched")
    event = await ctx.step.wait_for_event("event", payload["topic"], timeout=payload.get("timeout"))
    return event.model_dump(mode="json")


@workflow(id="awaits_two_events")
async def awaits_two_events(ctx: WorkflowContext, payload: dict) -> list:
    first = await ctx.step.wait_for_event("first", payload["topic"])
    note(ctx, "first")
    second = await ctx.step.wait_for_event("second", payload["topic"])
    return [first.data, second.data]


@workflow(id="announces_then_awaits")
async def announces_then_awaits(ctx: WorkflowContext, payload: dict) -> dict:
    """Whoever answers at once answers before the wait is registered."""
    await ctx.step.publish_event("question", payload["topic"], {"n": 1}, event_type="question")
    event = await ctx.step.wait_for_event("answer", payload["topic"], timeout=20)
    return event.data


@workflow(id="asks")
async def asks(ctx: WorkflowContext, payload: dict) -> Any:
    note(ctx, "dispatched")
    answer = await ctx.step.suspend(payload["key"], {"ask": payload["key"]}, timeout=payload.get("timeout"))
    return answer["data"]


@workflow(id="asks_in_a_child")
async def asks_in_a_child(ctx: WorkflowContext, payload: dict) -> Any:
    return await ctx.step.invoke_and_wait("child", asks, payload)


@workflow(id="asks_often")
async def asks_often(ctx: WorkflowContext, payload: dict) -> list:
    return [(await ctx.step.suspend(f"q{n}", {"n": n}))["data"] for n in range(payload["n"])]


@workflow(id="answers")
async def answers(ctx: WorkflowContext, payload: dict) -> None:
    await ctx.step.resume("resume", payload["key"], payload["run"], payload["workflow"], {"by": "a workflow"})


# Events.


@workflow(id="publishes")
async def publishes(ctx: WorkflowContext, payload: dict) -> None:
    await ctx.step.publish_event("p", payload["topic"], payload["data"], event_type="told")
    await ctx.step.publish_workflow_event("w", {"inner": True}, event_type="progress")
    if ctx.retry_count == 0:
        raise RuntimeError("again: an event that was published is not published twice")


# Queues.


async def occupy(ctx: WorkflowContext, payload: dict) -> None:
    """Be seen to hold a place in a queue, until the test opens the gate if it names one."""
    note(ctx, "enter", n=payload.get("n"), key=payload.get("key"))
    if payload.get("gate"):
        await marks.gate(payload["gate"])
    else:
        await others_run(0.02)
    note(ctx, "leave", n=payload.get("n"), key=payload.get("key"))


@workflow(id="in_turn", queue={"concurrency_limit": 1})
async def in_turn(ctx: WorkflowContext, payload: dict) -> None:
    await occupy(ctx, payload)


@workflow(id="in_pairs", queue=queue("pairs", concurrency_limit=2))
async def in_pairs(ctx: WorkflowContext, payload: dict) -> None:
    await occupy(ctx, payload)


@workflow(id="also_in_pairs", queue="pairs")
async def also_in_pairs(ctx: WorkflowContext, payload: dict) -> None:
    await occupy(ctx, payload)


@workflow(id="anywhere")
async def anywhere(ctx: WorkflowContext, payload: dict) -> None:
    await occupy(ctx, payload)


@workflow(id="waits_in_turn", queue={"concurrency_limit": 1})
async def waits_in_turn(ctx: WorkflowContext, payload: dict) -> None:
    """A run that waits holds no place, so that those behind it come to their waits too."""
    note(ctx, "enter", n=payload["n"])
    await ctx.step.wait_for_event("event", payload["topic"])
    note(ctx, "leave", n=payload["n"])


@workflow(id="parent_in_turn", queue={"concurrency_limit": 1})
async def parent_in_turn(ctx: WorkflowContext, payload: dict) -> Any:
    """Its child stands in the same queue: a parent that kept its place would wait for ever."""
    if payload["depth"] == 0:
        return "bottom"
    return await ctx.step.invoke_and_wait("child", "parent_in_turn", {"depth": payload["depth"] - 1})


# Cancellation and time limits.


@workflow(id="hangs")
async def hangs(ctx: WorkflowContext) -> None:
    note(ctx, "started")
    try:
        await marks.for_ever()
    finally:
        note(ctx, "unwound")


@workflow(id="hangs_in_a_step")
async def hangs_in_a_step(ctx: WorkflowContext) -> None:
    await ctx.step.run("s1", note, ctx, "started")
    await ctx.step.run("s2", marks.for_ever)


@workflow(id="cancels_itself")
async def cancels_itself(ctx: WorkflowContext) -> None:
    note(ctx, "attempt")
    raise asyncio.CancelledError


@workflow(id="fires_and_hangs")
async def fires_and_hangs(ctx: WorkflowContext) -> None:
    await ctx.step.invoke("child", hangs, None)
    note(ctx, "started")
    await marks.for_ever()


# Crashes.


@workflow(id="pauses")
async def pauses(ctx: WorkflowContext, payload: dict) -> str:
    """A step, a pause until the test opens a gate, a step."""
    await ctx.step.run("before", note, ctx, "before")
    note(ctx, "pausing")
    await marks.gate(payload["gate"])
    return await ctx.step.run("after", note, ctx, "after", "through")


@workflow(id="kills_its_worker")
async def kills_its_worker(ctx: WorkflowContext) -> None:
    """Poison: no worker survives it."""
    note(ctx, "attempt")
    os._exit(9)
