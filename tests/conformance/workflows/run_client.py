# mypy: ignore-errors
"""What a user of the foreign SDK's client does, run by that SDK's own interpreter.

    .sdks/polos-VERSION/bin/python -m tests.conformance.workflows.run_client MODULE…

Reads calls from standard input, one JSON array `[name, arguments]` a line, and answers each with one line: `{"value": …}`
or `{"raised": class, "message": text}`. The client is the unmodified `PolosClient`; MODULEs hold the workflows that it knows.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from importlib import import_module
from typing import Any

from polos import BatchWorkflowInput, PolosClient
from polos.core.workflow import get_workflow
from polos.features import events, schedules
from polos.runtime.client import ExecutionHandle
from pydantic import BaseModel

CALL_SECONDS = 60
CALLS: dict[str, Callable[..., Awaitable[Any]]] = {}


def call(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    CALLS[function.__name__] = function
    return function


def plainly(value: Any) -> Any:
    """Return what the client made of a result, as JSON that tells of which class it was."""
    if isinstance(value, BaseModel):
        return {"class": type(value).__name__, **value.model_dump(mode="json")}
    return value


@call
async def run(client: PolosClient, workflow: str, payload: Any = None, **options: Any) -> Any:
    """`workflow.run`: submit and poll until it has ended."""
    return plainly(await get_workflow(workflow).run(client, payload, **options))


@call
async def invoke(client: PolosClient, workflow: str, payload: Any = None, **options: Any) -> Any:
    """`workflow.invoke`: submit; returns the handle."""
    return (await get_workflow(workflow).invoke(client, payload, **options)).to_dict()


@call
async def submit(client: PolosClient, workflow: str, payload: Any = None, **options: Any) -> Any:
    """`client.invoke`: submit by name, also what no module defines."""
    return (await client.invoke(workflow, payload, **options)).to_dict()


@call
async def submit_many(client: PolosClient, workflow: str, payloads: list[Any]) -> list[str]:
    """Submit one after the other."""
    return [(await client.invoke(workflow, payload)).id for payload in payloads]


@call
async def submit_batch(client: PolosClient, workflows: list[Any], **options: Any) -> list[Any]:
    """`client.batch_invoke`."""
    inputs = [BatchWorkflowInput(id=name, payload=payload) for name, payload in workflows]
    return [handle.to_dict() for handle in await client.batch_invoke(inputs, **options)]


@call
async def execution(client: PolosClient, run: str) -> Any:
    """`client.get_execution`."""
    return await client.get_execution(run)


@call
async def handle_get(client: PolosClient, workflow: str, run: str) -> Any:
    """`handle.get`, with the result that the client rebuilds."""
    found = await ExecutionHandle(id=run, workflow_id=workflow).get(client)
    return found | {"result": plainly(found["result"])}


@call
async def cancel(client: PolosClient, run: str) -> bool:
    """`client.cancel_execution`."""
    return await client.cancel_execution(run)


@call
async def resume(client: PolosClient, workflow: str, run: str, key: str, data: Any) -> None:
    """`client.resume`."""
    await client.resume(workflow, run, key, data)


@call
async def publish(client: PolosClient, topic: str, data: list[Any], event_type: str | None = None) -> list[int]:
    """`events.batch_publish`."""
    items = [events.EventData(data=item, event_type=event_type) for item in data]
    return await events.batch_publish(client, topic, items)


async def first(stream: Any, count: int) -> list[Any]:
    """Return the first events of a stream, and close it."""
    found = []
    async with aclosing(stream):
        async for event in stream:
            found.append(event.model_dump(mode="json"))
            if len(found) == count:
                break
    return found


@call
async def stream_topic(client: PolosClient, topic: str, count: int, last_sequence_id: int) -> list[Any]:
    """`events.stream_topic`, up to a number of events."""
    return await first(events.stream_topic(client, topic, last_sequence_id=last_sequence_id), count)


@call
async def stream_and_publish(client: PolosClient, topic: str, batches: list[list[Any]]) -> list[Any]:
    """`events.stream_topic` as it is by default, from now on, while the same client publishes."""
    count = sum(len(batch) for batch in batches)
    reader = asyncio.create_task(first(events.stream_topic(client, topic), count))
    for batch in batches:
        await publish(client, topic, batch)
    return await reader


@call
async def stream_run(client: PolosClient, workflow: str, run: str, last_sequence_id: int = 0) -> list[Any]:
    """`events.stream_workflow`, until the SDK says that it is over."""
    stream = events.stream_workflow(client, workflow, run, last_sequence_id=last_sequence_id)
    return [event.model_dump(mode="json") async for event in stream]


@call
async def answer_at_once(client: PolosClient, workflow: str, payload: Any, count: int) -> Any:
    """Run a workflow, and answer each of its `suspend` in the moment in which its event arrives."""
    handle = await get_workflow(workflow).invoke(client, payload)
    answered = 0
    stream = events.stream_workflow(client, handle.workflow_id, handle.id, last_sequence_id=0)
    async with aclosing(stream):
        async for event in stream:
            if (event.event_type or "").startswith("suspend_"):
                key = event.event_type.removeprefix("suspend_")
                await client.resume(workflow, handle.id, key, {"answer": answered})
                answered += 1
            if answered == count:
                break
    return handle.id


@call
async def answer_event_at_once(client: PolosClient, workflow: str, topic: str) -> str:
    """Run a workflow that asks on a topic, and publish there in the moment in which its question arrives."""
    handle = await get_workflow(workflow).invoke(client, {"topic": topic})
    await first(events.stream_topic(client, topic, last_sequence_id=0), 1)
    await publish(client, topic, [{"answer": True}], "answer")
    return handle.id


@call
async def schedule(client: PolosClient, **options: Any) -> str:
    """`polos.schedules.create`."""
    return await schedules.create(client, **options)


@call
async def agent_run(client: PolosClient, agent: str, text: str, **options: Any) -> Any:
    """`agent.run`."""
    return plainly(await get_workflow(agent).run(client, text, **options))


@call
async def agent_stream(client: PolosClient, agent: str, text: str) -> Any:
    """`agent.stream`: the text as it comes, and the whole result."""
    stream = await get_workflow(agent).stream(client, text)
    chunks = [chunk async for chunk in stream.text_chunks]
    return {"chunks": chunks, "text": await stream.text(), "result": plainly(await stream.result())}


@call
async def agent_invoke(client: PolosClient, agent: str, text: str, **options: Any) -> Any:
    """Start an agent without waiting."""
    return (await get_workflow(agent).invoke(client, {"input": text, "streaming": False}, **options)).to_dict()


@call
async def suspended(client: PolosClient, workflow: str, run: str) -> Any:
    """Wait until a run, or one below it, suspends itself: the event that says so."""
    stream = events.stream_workflow(client, workflow, run, last_sequence_id=0)
    async with aclosing(stream):
        async for event in stream:
            if (event.event_type or "").startswith("suspend_"):
                return event.model_dump(mode="json")
    return None


async def answer(client: PolosClient, line: str) -> Any:
    name, arguments = json.loads(line)
    try:
        return {"value": await asyncio.wait_for(CALLS[name](client, **arguments), CALL_SECONDS)}
    except Exception as error:  # noqa: BLE001 - told to the test, whatever it is
        return {"raised": type(error).__name__, "message": str(error), "trace": traceback.format_exc()}


async def main(modules: list[str]) -> None:
    for module in modules:
        import_module(f"tests.conformance.workflows.{module}")
    client = PolosClient()
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await answer(client, line)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
