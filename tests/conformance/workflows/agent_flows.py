# mypy: ignore-errors
# No `from __future__ import annotations`: the SDK looks at the annotations of a tool's parameters.
"""Agents and tools of ours in the foreign SDK; their language model is `run_llm`."""

from typing import Any

from polos import Agent, WorkflowContext, tool, workflow
from pydantic import BaseModel

from tests.conformance.workflows import marks


class Place(BaseModel):
    city: str


class Weather(BaseModel):
    city: str
    degrees: int


@tool(description="Tells the weather")
async def weather(ctx: WorkflowContext, payload: Place) -> Weather:
    marks.note(ctx.execution_id, "weather", city=payload.city, parent=ctx.parent_execution_id)
    return Weather(city=payload.city, degrees=20)


@tool(description="Is broken")
async def broken(ctx: WorkflowContext) -> str:
    marks.note(ctx.execution_id, "broken")
    raise RuntimeError("the tool is broken")


@tool(description="Asks first", approval="always")
async def guarded(ctx: WorkflowContext, payload: Place) -> str:
    marks.note(ctx.execution_id, "guarded", city=payload.city)
    return f"went to {payload.city}"


SETTINGS: dict[str, Any] = {"provider": "openai", "model": "stub", "system_prompt": "You are a stub."}

clerk = Agent(id="clerk", tools=[weather, broken, guarded], **SETTINGS)
forecaster = Agent(id="forecaster", output_schema=Weather, **SETTINGS)


@workflow(id="asks_two_agents")
async def asks_two_agents(ctx: WorkflowContext, payload: dict) -> list:
    one = await ctx.step.agent_invoke_and_wait("one", clerk.with_input(payload["one"]))
    configs = [clerk.with_input(text) for text in payload["more"]]
    more = await ctx.step.batch_agent_invoke_and_wait("more", configs)
    return [one.total_steps, *(result.success for result in more)]
