"""Waits of the foreign SDK that go through the server: time, events, and questions that somebody answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from uuid import uuid4

import pytest

from tests.conformance.workflows.world import Client, World

WORKER = {"POLOS_WAIT_THRESHOLD_SECONDS": "0"}
"""No wait is slept inside the worker."""


def new_topic() -> str:
    """Return a topic of one's own."""
    return f"flows/{uuid4()}"


@pytest.mark.parametrize("workflow", ["sleeps", "sleeps_until"])
def test_a_wait_for_time_ends_when_it_is_due(world: World, client: Client, workflow: str) -> None:
    run = client.start(workflow, {"seconds": 2})
    waiting = world.in_status(run, "waiting")
    assert waiting["assigned_to_worker"]
    record = world.ended(run)
    assert (record["status"], record["result"]) == ("completed", "rested")
    step = world.step(run, "nap")
    assert step is not None
    due = datetime.fromisoformat(step["outputs"]["wait_until"])
    assert (step["success"], datetime.fromisoformat(record["completed_at"]) >= due) == (True, True)


def test_a_wait_into_the_past_fails(world: World, client: Client) -> None:
    record = world.ended(client.start("sleeps_until", {"seconds": -5}))
    assert (record["status"], record["retry_count"]) == ("failed", 1)
    assert "is in the past" in record["error"]


def test_an_event_ends_the_waits_of_all_who_wait_for_it(world: World, client: Client) -> None:
    topic = new_topic()
    runs = [client.start("awaits_event", {"topic": topic}) for _ in range(3)]
    for run in runs:
        world.in_status(run, "waiting")
    (number,) = client("publish", topic=topic, data=[{"n": 1, "text": "\u2028ü"}], event_type="told")
    for run in runs:
        event = world.ended(run)["result"]
        assert (event["sequence_id"], event["topic"], event["event_type"]) == (number, topic, "told")
        assert (event["data"], bool(event["id"]), bool(event["created_at"])) == (
            {"n": 1, "text": "\u2028ü"},
            True,
            True,
        )
        assert len(world.notes("dispatched", run=run)) == 2


def test_an_event_of_another_topic_ends_no_wait(world: World, client: Client) -> None:
    topic = new_topic()
    run = client.start("awaits_event", {"topic": topic})
    world.in_status(run, "waiting")
    client("publish", topic=f"{topic}/more", data=[{"n": 1}])
    client("publish", topic=topic, data=[{"n": 2}])
    assert world.ended(run)["result"]["data"] == {"n": 2}


def test_one_event_is_not_delivered_to_two_waits_of_one_run(world: World, client: Client) -> None:
    topic = new_topic()
    run = client.start("awaits_two_events", {"topic": topic})
    world.in_status(run, "waiting")
    client("publish", topic=topic, data=[{"n": 1}])
    world.noted("first", run=run)
    world.in_status(run, "waiting")
    client("publish", topic=topic, data=[{"n": 2}])
    assert world.ended(run)["result"] == [{"n": 1}, {"n": 2}]


def test_a_wait_for_an_event_expires(world: World, client: Client) -> None:
    record = world.ended(client.start("awaits_event", {"topic": new_topic(), "timeout": 1}))
    assert (record["status"], record["retry_count"]) == ("failed", 1)
    assert record["error"].startswith("Event wait expired at ")
    datetime.fromisoformat(record["error"].removeprefix("Event wait expired at "))


def test_an_answer_that_comes_before_the_wait_is_found(world: World, client: Client) -> None:
    topic = new_topic()
    run = client("answer_event_at_once", workflow="announces_then_awaits", topic=topic)
    assert world.ended(run)["result"] == {"answer": True}


def test_a_question_is_answered(world: World, client: Client) -> None:
    run = client.start("asks", {"key": "q"})
    event = client("suspended", workflow="asks", run=run)
    assert event["event_type"] == "suspend_q"
    assert event["data"] == {"ask": "q", "_approval_url": f"{world.live.base_url}/approve/{run}/q"}
    world.in_status(run, "waiting")
    client("resume", workflow="asks", run=run, key="q", data={"yes": [1, None]})
    record = world.ended(run)
    assert (record["status"], record["result"]) == ("completed", {"yes": [1, None]})
    assert len(world.notes("dispatched", run=run)) == 2


def test_an_answer_to_another_question_does_not_resume(world: World, client: Client) -> None:
    run = client.start("asks", {"key": "q"})
    world.in_status(run, "waiting")
    client("resume", workflow="asks", run=run, key="other", data={"n": 1})
    client("publish", topic=f"workflow/asks/{run}", data=[{"n": 2}], event_type="q")
    client("resume", workflow="asks", run=run, key="q", data={"n": 3})
    assert world.ended(run)["result"] == {"n": 3}


def test_a_question_of_a_child_is_answered_on_its_roots_topic(world: World, client: Client) -> None:
    run = client.start("asks_in_a_child", {"key": "deep/er q"})
    client("suspended", workflow="asks_in_a_child", run=run)
    world.in_status(run, "waiting")
    client("resume", workflow="asks_in_a_child", run=run, key="deep/er q", data={"n": 1})
    assert world.ended(run)["result"] == {"n": 1}


def test_a_workflow_answers_another(world: World, client: Client) -> None:
    run = client.start("asks", {"key": "q"})
    client("suspended", workflow="asks", run=run)
    client.run("answers", {"key": "q", "run": run, "workflow": "asks"})
    assert world.ended(run)["result"] == {"by": "a workflow"}


def test_a_question_that_nobody_answers_expires(world: World, client: Client) -> None:
    record = world.ended(client.start("asks", {"key": "q", "timeout": 1}))
    assert (record["status"], record["retry_count"]) == ("failed", 1)
    assert "expired at " in record["error"]


@contextmanager
def busy_processors() -> Iterator[None]:
    """Keep every processor busy."""
    with ExitStack() as stack:
        for _ in range(2):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(busy.kill)
        yield


def test_no_answer_that_comes_at_once_is_lost(world: World, client: Client) -> None:
    """The SDK tells that it asks before it registers that it waits: the answer may come between."""
    run = client("answer_at_once", workflow="asks_often", payload={"n": 30}, count=30)
    assert world.ended(run)["result"] == [{"answer": n} for n in range(30)]


def test_no_answer_that_comes_at_once_is_lost_under_load(world: World, client: Client) -> None:
    with busy_processors():
        run = client("answer_at_once", workflow="asks_often", payload={"n": 10}, count=10)
        assert world.ended(run)["result"] == [{"answer": n} for n in range(10)]


def test_an_approval_is_read_and_given_over_http(world: World, client: Client) -> None:
    run = client.start("asks", {"key": "approve me"})
    world.in_status(run, "waiting")
    path = f"/api/v1/approvals/{run}/approve%20me"
    with world.http() as http:
        found = http.get(path).raise_for_status().json()
        assert (found["execution_id"], found["step_key"], found["status"]) == (run, "approve me", "waiting")
        assert found["data"]["ask"] == "approve me"
        given = http.post(f"{path}/submit", json={"data": {"approved": True}})
        assert (given.status_code, given.content) == (200, b"")
        assert world.ended(run)["result"] == {"approved": True}
        assert http.post(f"{path}/submit", json={"data": {}}).status_code == 409
        after = http.get(path).raise_for_status().json()
    assert (after["status"], after["data"]) == ("completed", None)


def test_the_page_of_an_approval_is_there(world: World, client: Client) -> None:
    run = client.start("asks", {"key": "q"})
    url = client("suspended", workflow="asks", run=run)["data"]["_approval_url"]
    with world.http() as http:
        page = http.get(url)
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")
    client("resume", workflow="asks", run=run, key="q", data={})
    world.ended(run)
