"""Agents and tools of the foreign SDK, whose language model is a stub over HTTP."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from tests.conformance.workflows.world import Client, World

MODULES = ("agent_flows",)


@pytest.fixture(scope="module", autouse=True, name="model")
def _model(bare_world: World) -> None:
    """The stub of the model."""
    bare_world.start_llm()


def use(tool: str, **arguments: Any) -> str:
    """Return what makes the model call a tool."""
    return f"use {tool} {json.dumps(arguments)}"


def asked(world: World, text: str) -> int:
    """Return how often the model was asked with this as the last message."""
    return len([line for line in world.notes("asked") if line["last"].get("content") == text])


def test_an_agent_answers(world: World, client: Client) -> None:
    text = f"reply {uuid4()}"
    result = client("agent_run", agent="clerk", text=text)
    assert (result["class"], result["result"], result["total_steps"]) == ("AgentResult", None, 1) or (
        result["result"] == text.removeprefix("reply ")
    )
    assert result["usage"]["total_tokens"] == 5
    record = world.execution(result["agent_run_id"])
    assert (record["workflow_id"], record["status"], record["queue_name"]) == ("clerk", "completed", "clerk")
    assert record["output_schema_name"] == "polos.types.types.AgentResult"
    assert asked(world, text) == 1


def test_an_agents_tools_run_as_a_batch_of_children(world: World, client: Client) -> None:
    text = "\n".join([use("weather", city=str(uuid4())), use("broken"), use("weather", city="Rome")])
    result = client("agent_run", agent="clerk", text=text)
    assert result["total_steps"] == 2
    outputs = [item["result"] for item in result["tool_results"]]
    assert [outputs[0]["degrees"], outputs[2]] == [20, {"city": "Rome", "degrees": 20}]
    assert outputs[1] == "Error: the tool is broken"
    assert asked(world, text) == 1, "the model's answer is a step: a resume does not ask again"
    calls = world.notes("weather", parent=result["agent_run_id"])
    children = [world.execution(line["run"]) for line in calls]
    assert len({child["batch_id"] for child in children}) == 1
    assert {(child["step_key"], child["retry_count"]) for child in children} == {("execute_tools:step_1", 0)}


def test_a_tool_that_fails_is_not_retried(world: World, client: Client) -> None:
    result = client("agent_run", agent="clerk", text=use("broken"))
    (step,) = [world.step(result["agent_run_id"], "execute_tools:step_1")]
    assert step is not None
    assert step["outputs"] == [{"workflow_id": "broken", "success": False, "error": "the tool is broken"}]


def test_an_agents_answer_has_the_shape_that_was_asked_for(client: Client) -> None:
    result = client("agent_run", agent="forecaster", text='reply {"city": "Oslo", "degrees": -3}')
    assert result["result"] == {"city": "Oslo", "degrees": -3}
    assert result["result_schema"] == "tests.conformance.workflows.agent_flows.Weather"


def test_an_agents_answer_is_streamed_word_by_word(client: Client) -> None:
    streamed = client("agent_stream", agent="clerk", text="reply one two three")
    assert streamed["chunks"] == ["one ", "two ", "three "]
    assert streamed["text"] == "one two three "
    assert streamed["result"]["total_steps"] == 1


def test_a_session_remembers(world: World, client: Client) -> None:
    session = f"se/ss ion?{uuid4()}"
    client("agent_run", agent="clerk", text="reply the first", session_id=session)
    result = client("agent_run", agent="clerk", text="recall", session_id=session)
    messages = world.step(result["agent_run_id"], "load_session_memory")
    assert messages is not None
    assert [message["content"] for message in messages["outputs"]["messages"]] == ["reply the first", "the first"]
    other = client("agent_run", agent="clerk", text="recall", session_id=str(uuid4()))
    empty = world.step(other["agent_run_id"], "load_session_memory")
    assert empty is not None
    assert empty["outputs"] == {"summary": None, "messages": []}


@pytest.mark.parametrize("approved", [True, False])
def test_a_tool_asks_before_it_runs(world: World, client: Client, approved: bool) -> None:  # noqa: FBT001 - a parameter
    city = str(uuid4())
    run = client("agent_invoke", agent="clerk", text=use("guarded", city=city))["id"]
    event = client("suspended", workflow="clerk", run=run)
    key = event["event_type"].removeprefix("suspend_")
    assert event["data"]["_form"]["context"] == {"tool": "guarded", "input": {"city": city}}
    world.in_status(run, "waiting")
    with world.http() as http:
        path = f"/api/v1/approvals/{run}/{key}"
        assert http.get(path).raise_for_status().json()["data"] == event["data"]
        http.post(f"{path}/submit", json={"data": {"approved": approved, "feedback": "so"}}).raise_for_status()
    (tool_result,) = world.ended(run)["result"]["tool_results"]
    rejected = 'Error: Tool "guarded" was rejected by the user. Feedback: so'
    assert tool_result["result"] == (f"went to {city}" if approved else rejected)
    assert len(world.notes("guarded", city=city)) == int(approved)


def test_a_workflow_asks_agents(client: Client) -> None:
    payload = {"one": "reply one", "more": ["reply two", use("weather", city="Bern")]}
    assert client.run("asks_two_agents", payload) == [1, True, True]


def test_what_the_worker_registered_can_be_read(world: World, client: Client) -> None:
    client("agent_run", agent="clerk", text="reply hello")
    with world.http() as http:
        agents = {agent["id"]: agent for agent in http.get("/api/v1/agents").raise_for_status().json()}
        tools = {tool["id"]: tool for tool in http.get("/api/v1/tools").raise_for_status().json()}
        flows = {flow["workflow_id"] for flow in http.get("/api/v1/workflows").raise_for_status().json()}
    clerk = agents["clerk"]
    assert (clerk["provider"], clerk["model"], clerk["system_prompt"]) == ("openai", "stub", "You are a stub.")
    assert [tool["function"]["name"] for tool in clerk["tools"]] == ["weather", "broken", "guarded"]
    assert (tools["weather"]["description"], tools["weather"]["tool_type"]) == ("Tells the weather", "default")
    assert tools["weather"]["parameters"]["required"] == ["city"]
    assert flows == {"asks_two_agents"}


def test_active_workers_are_listed(world: World, client: Client) -> None:
    run = client("agent_run", agent="clerk", text="reply hello")["agent_run_id"]
    with world.http() as http:
        active = http.get("/api/v1/workers/active").raise_for_status().json()
    assert active == {"worker_ids": [world.execution(run)["assigned_to_worker"]]}
