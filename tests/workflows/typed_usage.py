"""Never run: the type checker proves here what types users of the workflow SDK see."""

from __future__ import annotations

from typing import Any, assert_type

from dormice.workflows import AsyncWorkflows, CommandResult, Context, Retry, Workflow, WorkflowRun, Workflows, workflow


async def double(number: int) -> int:
    return 2 * number


def text(number: int, unit: str) -> str:
    return f"{number} {unit}"


@workflow
async def fed(ctx: Context, number: int) -> str:
    assert_type(await ctx.step("a", double, number), int)
    assert_type(await ctx.step("b", text, number, "m"), str)
    assert_type(await ctx.child("c", fed, 1), str)
    assert_type(await ctx.child("d", plain), bytes)
    assert_type(await ctx.child("e", "by id", {"any": 1}), Any)
    assert_type(await ctx.gather(ctx.child("f", fed, 1), ctx.step("g", double, 1)), tuple[str, int])
    assert_type(await ctx.gather(*(ctx.child(f"h{n}", fed, n) for n in range(9))), tuple[str, ...])
    assert_type(await ctx.event("i", "topic", returns=int), int)
    assert_type(await ctx.exec("j", "dm-1", ["true"]), CommandResult)
    assert_type(await ctx.suspend("m", {"why": 1}, returns=bool), bool)
    await ctx.publish("n", None, number, event_type="progress")
    await ctx.step("k", double, "no number")  # type: ignore[arg-type]
    await ctx.child("l", fed, "no number")  # type: ignore[misc]
    return ""


@workflow(queue="mail", retry=Retry(attempts=5), events=True)
async def plain(ctx: Context) -> bytes:
    return b""


def use(client: Workflows) -> None:
    assert_type(fed, Workflow[int, str])
    assert_type(plain, Workflow[None, bytes])
    assert_type(client.run(fed, 1), str)
    assert_type(client.run(plain), bytes)
    assert_type(client.run("by id", 1), Any)
    assert_type(client.wait(client.start(fed, 1)), WorkflowRun)
    client.run(fed, "no number")  # type: ignore[misc]


async def use_async(client: AsyncWorkflows) -> None:
    assert_type(await client.run(fed, 1), str)
    assert_type(await client.get("id"), WorkflowRun)
