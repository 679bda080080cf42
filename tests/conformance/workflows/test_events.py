"""Events of the foreign SDK: what is published is streamed, from now on or from before."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from tests.conformance.workflows.world import Client, World


def new_topic() -> str:
    """Return a topic of one's own."""
    return f"flows/{uuid4()}"


def test_what_was_published_is_streamed_again_from_a_number_on(client: Client) -> None:
    topic = new_topic()
    numbers = client("publish", topic=topic, data=[{"n": n} for n in range(5)], event_type="told")
    assert numbers == sorted(set(numbers))
    events = client("stream_topic", topic=topic, count=5, last_sequence_id=0)
    assert [(event["sequence_id"], event["data"]["n"]) for event in events] == list(zip(numbers, range(5), strict=True))
    assert {(event["topic"], event["event_type"]) for event in events} == {(topic, "told")}
    assert len({event["id"] for event in events}) == 5
    later = client("stream_topic", topic=topic, count=2, last_sequence_id=numbers[2])
    assert [event["data"]["n"] for event in later] == [3, 4]


def test_a_stream_from_now_on_misses_nothing_that_is_published_after_it_was_asked_for(client: Client) -> None:
    batches = [[{"n": n}, {"n": n + 1}] for n in range(0, 40, 2)]
    events = client("stream_and_publish", topic=new_topic(), batches=batches)
    assert [event["data"]["n"] for event in events] == list(range(40))


ODD: list[dict[str, Any]] = [
    {},
    {"text": "line\nline\r\ndata: no"},
    {"text": "\u2028 \u2029 \x85 \x0b \x0c \x1c \x1d \x1e"},
    {"text": "\x00\ufffe🦔"},
    {"deep": [[[{"a": None}]]], "number": 2**53 + 1, "float": 1.5},
    {"long": "x" * 300_000},
    {"after": "all of them"},
]


def test_any_data_comes_through_a_stream(client: Client) -> None:
    """The SDK ends a line of a stream wherever Unicode knows a line break, also inside of a JSON text."""
    topic = new_topic()
    client("publish", topic=topic, data=ODD)
    events = client("stream_topic", topic=topic, count=len(ODD), last_sequence_id=0)
    assert [event["data"] for event in events] == ODD


def test_data_that_was_written_over_several_lines_comes_through_a_stream(world: World, client: Client) -> None:
    topic = new_topic()
    body = json.dumps({"topic": topic, "events": [{"data": {"a": [1, {"b": "\u2028"}]}}]}, indent=2, ensure_ascii=False)
    with world.http() as http:
        headers = {"Content-Type": "application/json"}
        http.post("/api/v1/events/publish", content=body.encode(), headers=headers).raise_for_status()
    (event,) = client("stream_topic", topic=topic, count=1, last_sequence_id=0)
    assert event["data"] == {"a": [1, {"b": "\u2028"}]}


def test_a_run_tells_its_story_on_its_topic(world: World, client: Client) -> None:
    run = client.start("receipt", {"customer": "c", "lines": []})
    events = client("stream_run", workflow="receipt", run=run)
    assert [event["event_type"] for event in events] == [
        "workflow_start",
        "step_start",
        "step_finish",
        "workflow_finish",
    ]
    assert {event["topic"] for event in events} == {f"workflow/receipt/{run}"}
    assert {event["data"]["_metadata"]["execution_id"] for event in events} == {run}
    assert events[-1]["data"]["result"] == world.ended(run)["result"]


def test_a_child_tells_its_story_on_its_roots_topic(client: Client) -> None:
    run = client.start("parent_of", {"child": "plain"})
    events = client("stream_run", workflow="parent_of", run=run)
    told = [(event["event_type"], event["data"]["_metadata"]["workflow_id"]) for event in events]
    assert told == [
        ("workflow_start", "parent_of"),
        ("workflow_start", "plain"),
        ("workflow_finish", "plain"),
        ("workflow_finish", "parent_of"),
    ]


def test_the_stream_of_a_run_that_failed_ends(client: Client) -> None:
    """No event tells of a failure: the SDK goes on reading until the server ends the stream."""
    run = client.start("bad_step")
    events = client("stream_run", workflow="bad_step", run=run)
    assert [event["event_type"] for event in events] == ["workflow_start", "step_start"]


def test_the_stream_of_a_run_that_was_cancelled_ends(world: World, client: Client) -> None:
    run = client.start("hangs")
    world.noted("started", run=run)
    assert client("cancel", run=run) is True
    events = client("stream_run", workflow="hangs", run=run)
    assert [event["event_type"] for event in events][:1] == ["workflow_start"]


def test_an_event_of_a_step_is_published_once(world: World, client: Client) -> None:
    topic = new_topic()
    run = client.start("publishes", {"topic": topic, "data": {"n": 1}})
    assert world.ended(run)["retry_count"] == 1
    client("publish", topic=topic, data=[{"n": 2}])
    events = client("stream_topic", topic=topic, count=2, last_sequence_id=0)
    assert [(event["data"], event["event_type"]) for event in events] == [({"n": 1}, "told"), ({"n": 2}, None)]
    own = client("stream_run", workflow="publishes", run=run)
    assert [event["data"] for event in own if event["event_type"] == "progress"] == [{"inner": True}]
