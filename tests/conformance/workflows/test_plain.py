"""Plain workflows of the foreign SDK: results, failures, retries, steps, state, and what the record says."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.conformance.workflows.world import Client, Refused, World

FIELDS = {
    "id", "workflow_id", "status", "payload", "result", "error", "created_at", "started_at", "completed_at",
    "deployment_id", "assigned_to_worker", "parent_execution_id", "root_execution_id", "retry_count", "step_key",
    "queue_name", "concurrency_key", "batch_id", "session_id", "user_id", "output_schema_name", "cancelled_at",
    "cancelled_by", "run_timeout_seconds",
}  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
"""Python 3.10 reads no other number of digits."""


def test_a_plain_workflow_returns_its_result(client: Client) -> None:
    assert client.run("plain") == 42


def test_every_field_of_a_record_has_its_meaning(world: World, client: Client) -> None:
    record = world.ended(client.start("plain"))
    assert set(record) == FIELDS
    UUID(record["id"])
    UUID(record["assigned_to_worker"])
    UUID(record["session_id"])
    moments = [record[name] for name in ("created_at", "started_at", "completed_at")]
    assert all(TIME.fullmatch(moment) for moment in moments), moments
    assert moments == sorted(moments)
    fixed = {
        "workflow_id": "plain", "status": "completed", "payload": None, "result": 42, "error": None,
        "deployment_id": "default", "parent_execution_id": None, "root_execution_id": None, "retry_count": 0,
        "step_key": None, "queue_name": "plain", "concurrency_key": None, "batch_id": None, "user_id": None,
        "output_schema_name": None, "cancelled_at": None, "cancelled_by": None, "run_timeout_seconds": None,
    }  # fmt: skip
    assert {name: record[name] for name in fixed} == fixed
    assert len(world.notes("ran", run=record["id"])) == 1


def test_what_the_caller_says_about_a_run_is_in_its_record(world: World, client: Client) -> None:
    session = str(uuid4())
    run = client.start(
        "echo",
        {"value": 1},
        queue="elsewhere",
        concurrency_key="k",
        session_id=session,
        user_id="u",
        run_timeout_seconds=9,
    )
    record = world.ended(run)
    said = {"queue_name": "elsewhere", "concurrency_key": "k", "session_id": session, "user_id": "u"}
    assert {name: record[name] for name in said} == said
    assert (record["run_timeout_seconds"], record["payload"]) == (9, {"value": 1})


def test_run_sets_its_own_limit_on_the_run(world: World, client: Client) -> None:
    mark = str(uuid4())
    assert client.run("echo", {"value": 1, "mark": mark}, timeout=77.5) == 1
    (line,) = world.notes("ran", mark=mark)
    assert world.execution(line["run"])["run_timeout_seconds"] == 77


def test_the_workflow_is_told_who_it_is(world: World, client: Client) -> None:
    record = world.ended(client.start("about_me", user_id="somebody"))
    told = record["result"]
    assert told["execution_id"] == told["root_execution_id"] == record["id"]
    assert (told["workflow_id"], told["root_workflow_id"]) == ("about_me", "about_me")
    assert (told["deployment_id"], told["parent_execution_id"], told["retry_count"]) == ("default", None, 0)
    assert (told["session_id"], told["user_id"]) == (record["session_id"], "somebody")
    assert datetime.fromisoformat(told["created_at"]) == datetime.fromisoformat(record["created_at"])


VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**53 + 1, 10**30, 1e300, "", "text", "\u2028\u2029\x85\x00\x1f\ufffe", "🦔", [],
    {}, [[[]]], {"": {"a/b": [None]}}, "x" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_any_json_comes_back_as_it_was(client: Client, value: Any) -> None:
    back = client.run("echo", {"value": value})
    assert (back, type(back)) == (value, type(value))


def test_a_workflow_that_always_fails_has_three_attempts_and_one_step(world: World, client: Client) -> None:
    record = world.ended(client.start("fails_each_time"))
    assert (record["status"], record["retry_count"], record["error"]) == ("failed", 3, "attempt 3 failed")
    assert (record["result"], bool(record["completed_at"])) == (None, True)
    assert [line["attempt"] for line in world.notes("attempt", run=record["id"])] == [0, 1, 2]
    assert len(world.notes("s1", run=record["id"])) == 1


def test_run_raises_what_the_workflow_said(client: Client) -> None:
    with pytest.raises(Refused, match="Workflow execution failed: attempt 3 failed") as refused:
        client.run("fails_each_time")
    assert refused.value.name == "RuntimeError"


def test_a_retry_finds_its_steps_and_its_success_clears_the_error(world: World, client: Client) -> None:
    record = world.ended(client.start("fails_at_first", {"times": 2}))
    assert (record["status"], record["retry_count"], record["error"]) == ("completed", 2, None)
    made = [line["made"] for line in world.notes("attempt", run=record["id"])]
    assert made == [record["result"]["made"]] * 3, "uuid, now and random are made once"
    assert len(world.notes("s1", run=record["id"])) == 1


def test_a_failed_step_fails_the_run_without_a_retry(world: World, client: Client) -> None:
    record = world.ended(client.start("bad_step"))
    assert (record["status"], record["retry_count"]) == ("failed", 1)
    assert record["error"] == "Step execution failed after 0 retries: bad step"
    assert len(world.notes("attempt", run=record["id"])) == 1
    step = world.step(record["id"], "bad")
    assert step is not None
    assert (step["success"], step["error"], step["outputs"]) == (False, {"message": "bad step"}, None)


def test_a_step_is_retried_inside_the_worker(world: World, client: Client) -> None:
    record = world.ended(client.start("step_retried"))
    assert (record["status"], record["result"], record["retry_count"]) == ("completed", "lucky", 0)
    assert len(world.notes("try", run=record["id"])) == 3


def test_a_result_that_is_not_json_fails_after_three_attempts(world: World, client: Client) -> None:
    record = world.ended(client.start("unserialisable"))
    assert (record["status"], record["retry_count"], record["result"]) == ("failed", 3, None)
    assert "JSON" in record["error"]
    assert len(world.notes("attempt", run=record["id"])) == 3


def test_an_unknown_workflow_is_accepted_and_then_failed_by_the_worker(world: World, client: Client) -> None:
    record = world.ended(client("submit", workflow="nope")["id"])
    assert (record["status"], record["retry_count"]) == ("failed", 1)
    assert record["error"] == "Workflow nope not found in registry or global workflow registry"


def test_a_payload_of_the_wrong_shape_fails_in_the_worker(world: World, client: Client) -> None:
    record = world.ended(client("submit", workflow="receipt", payload={"customer": "c"})["id"])
    assert (record["status"], record["retry_count"]) == ("failed", 3)
    assert record["error"].startswith("Invalid payload for workflow 'receipt'")


ORDER = {"customer": "c", "lines": [{"article": "a", "pieces": 2}]}


def test_a_pydantic_result_comes_back_as_its_class(world: World, client: Client) -> None:
    result = client.run("receipt", ORDER)
    assert result == {"class": "Receipt", "order": ORDER, "total": 3, "at": "2026-01-02T00:00:00Z"}
    run = client.start("receipt", ORDER)
    record = world.ended(run)
    assert record["output_schema_name"] == "tests.conformance.workflows.flows.Receipt"
    assert client("handle_get", workflow="receipt", run=run)["result"]["class"] == "Receipt"
    step = world.step(run, "fee")
    assert step is not None
    assert step["output_schema_name"] == "tests.conformance.workflows.flows.Line"


KEYS = [
    "a/b", "/", "a//b", "a b", " ", "a:b", "ключ", "🦔", "a?b", "a?b=c&d", "ü?ö x{}", "100%", "a%2Fb", "a+b", '"', "\\",
    "[x]{y}", "a;b,c", "'", "a@b", "~", "k" * 2000, "steps", "complete", "wait", "a/steps/b",
]  # fmt: skip


def test_steps_with_any_key_are_found_again(world: World, client: Client) -> None:
    record = world.ended(client.start("steps_named", {"keys": KEYS}))
    assert (record["status"], record["error"], record["retry_count"]) == ("completed", None, 1)
    assert record["result"] == [f"<{key}>" for key in KEYS], "each finds its own value"
    ran = [line["key"] for line in world.notes("step", run=record["id"])]
    assert ran == KEYS, "none has run twice"


PARTS = [
    (["a#1", "a#2"], ["a#1", "a#2"]),
    (["a", "a#1"], ["a", "a"]),
    (["#"], ["#"]),
    (["?"], ["?"]),
    (["a b", "a%20b"], ["a b", "a b"]),
    ([".."], [".."]),
    (["../x", "x"], ["../x", "x"]),
]
"""Keys of steps, and those whose values they get: the SDK asks for some as if they were others."""


@pytest.mark.parametrize(("keys", "found"), PARTS)
def test_keys_that_the_sdk_sends_in_part_do_no_harm(
    world: World, client: Client, keys: list[str], found: list[str]
) -> None:
    """What stands behind `#`, a `?` at the end, and dots never reach the server when it is asked for a step, which then runs again."""
    record = world.ended(client.start("steps_named", {"keys": keys}))
    assert (record["error"], record["result"]) == (None, [f"<{key}>" for key in found])


def test_false_outputs_of_steps_are_kept_as_they_are(world: World, client: Client) -> None:
    run = client.start("falsy_steps")
    assert world.ended(run)["status"] == "completed"
    expected = {"zero": 0, "false": False, "text": "", "list": [], "object": {}, "null": None}
    for name, value in expected.items():
        step = world.step(run, name)
        assert step is not None
        found = step["outputs"]
        assert (found, type(found), step["success"]) == (value, type(value), True)


def test_the_state_that_a_run_begins_with_is_its_callers(world: World, client: Client) -> None:
    runs = [client.start("counts", {"by": 2}), client.start("counts", {"by": 2}, initial_state={"n": 5})]
    assert [world.ended(run)["result"] for run in runs] == [2, 7]


def test_a_hook_runs_as_a_step(client: Client) -> None:
    assert client.run("hooked", {"value": 21}) == 42


def test_two_hundred_submits_in_a_row_run_once_each(world: World, client: Client) -> None:
    runs = client("submit_many", workflow="plain", payloads=[None] * 200)
    assert {world.ended(run)["status"] for run in runs} == {"completed"}
    ran = [line["run"] for line in world.notes("ran") if line["run"] in set(runs)]
    assert sorted(ran) == sorted(runs)


def test_an_unknown_run_is_not_found(world: World, client: Client) -> None:
    with pytest.raises(Refused, match="404") as refused:
        client("execution", run=str(uuid4()))
    assert refused.value.name == "HTTPStatusError"
    with pytest.raises(Refused, match="400"):
        client("execution", run="not-a-uuid")
    assert client("cancel", run=str(uuid4())) is False
