"""Parents and children of the foreign SDK: results and failures that come back, batches, parallel branches."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.conformance.workflows.world import Client, World


def test_a_parent_gets_its_childs_result(world: World, client: Client) -> None:
    parent = world.ended(client.start("parent_of", {"child": "doubles_value", "payload": {"value": 4}}))
    assert (parent["status"], parent["result"], parent["retry_count"]) == ("completed", {"doubled": 8}, 0)
    (ran,) = world.notes("child", parent=parent["id"])
    child = world.execution(ran["run"])
    assert (child["parent_execution_id"], child["root_execution_id"]) == (parent["id"], parent["id"])
    assert (child["step_key"], child["queue_name"], child["batch_id"]) == ("child", "doubles_value", None)
    assert (child["session_id"], child["deployment_id"]) == (parent["session_id"], parent["deployment_id"])
    step = world.step(parent["id"], "child")
    assert step is not None
    assert (step["outputs"], step["success"], step["error"]) == ({"doubled": 8}, True, None)
    assert step["source_execution_id"] == child["id"]
    assert len(world.notes("dispatched", run=parent["id"])) == 2


def test_a_childs_failure_can_be_caught(world: World, client: Client) -> None:
    record = world.ended(client.start("parent_catches", {"child": "bad_step"}))
    assert (record["status"], record["error"], record["retry_count"]) == ("completed", None, 0)
    assert record["result"] == "caught: Step execution failed after 0 retries: bad step"


def test_a_parent_waits_while_its_child_is_retried(world: World, client: Client) -> None:
    record = world.ended(client.start("parent_of", {"child": "fails_at_first", "payload": {"times": 2}}))
    assert (record["status"], record["result"]["value"], record["retry_count"]) == ("completed", 7, 0)
    assert len(world.notes("dispatched", run=record["id"])) == 2


def test_a_childs_failure_that_is_not_caught_fails_the_parent_at_once(world: World, client: Client) -> None:
    record = world.ended(client.start("parent_of", {"child": "fails_each_time"}))
    assert (record["status"], record["retry_count"], record["error"]) == ("failed", 1, "attempt 3 failed")
    step = world.step(record["id"], "child")
    assert step is not None
    assert (step["success"], step["error"]) == (False, {"message": "attempt 3 failed"})


def test_a_batch_gives_results_in_order_whatever_becomes_of_each(world: World, client: Client) -> None:
    children = [("doubles_value", {"value": 1}), ("bad_step", None), ("plain", None)]
    record = world.ended(client.start("batch", {"children": children}))
    assert record["status"] == "completed"
    error = "Step execution failed after 0 retries: bad step"
    assert record["result"] == [
        {"workflow_id": "doubles_value", "success": True, "result": {"doubled": 2}, "error": None},
        {"workflow_id": "bad_step", "success": False, "result": None, "error": error},
        {"workflow_id": "plain", "success": True, "result": 42, "error": None},
    ]
    assert len(world.notes("dispatched", run=record["id"])) == 2


def test_a_batch_of_failures_fails_nobody_else(world: World, client: Client) -> None:
    record = world.ended(client.start("batch", {"children": [("bad_step", None)] * 2}))
    assert (record["status"], [result["success"] for result in record["result"]]) == ("completed", [False, False])


def test_a_batch_of_fifty_comes_back_whole(world: World, client: Client) -> None:
    record = world.ended(client.start("batch", {"children": [("doubles_value", {"value": n}) for n in range(1, 51)]}))
    assert [result["result"]["doubled"] for result in record["result"]] == [2 * n for n in range(1, 51)]
    children = world.notes("child", parent=record["id"])
    assert len(children) == 50
    assert len({world.execution(line["run"])["batch_id"] for line in children}) == 1


def test_a_batch_from_outside_shares_batch_and_session(world: World, client: Client) -> None:
    handles = client("submit_batch", workflows=[["plain", None], ["echo", {"value": 2}]], user_id="u")
    records = [world.ended(handle["id"]) for handle in handles]
    assert [(record["workflow_id"], record["result"]) for record in records] == [("plain", 42), ("echo", 2)]
    for name in ("batch_id", "session_id"):
        assert len({record[name] for record in records}) == 1, name
        assert records[0][name], name
    assert {(record["user_id"], record["step_key"], record["parent_execution_id"]) for record in records} == {
        ("u", None, None)
    }


def test_two_parallel_waits_make_two_children(world: World, client: Client) -> None:
    record = world.ended(client.start("gathers"))
    assert record["result"] == [{"doubled": 2}, {"doubled": 4}]
    children = world.notes("child", parent=record["id"])
    assert sorted(line["number"] for line in children) == [1, 2]


def test_waits_of_four_kinds_can_stand_side_by_side(world: World, client: Client) -> None:
    topic = f"flows/{uuid4()}"
    run = client.start("gathers_unlike", {"topic": topic})
    client("suspended", workflow="gathers_unlike", run=run)
    client("publish", topic=topic, data=[{"n": 1}])
    client("resume", workflow="gathers_unlike", run=run, key="answer", data={"n": 2})
    record = world.ended(run)
    # What the SDK returns for the timer depends on whether that was over when the run was last begun anew.
    assert record["result"][1:] == [{"doubled": 8}, {"n": 1}, {"n": 2}]
    assert len(world.notes("child", parent=run)) == 1


def test_children_one_after_the_other(world: World, client: Client) -> None:
    record = world.ended(client.start("sequence", {"n": 10}))
    assert record["result"] == 90
    assert len(world.notes("child", parent=record["id"])) == 10


def test_root_session_and_user_go_down_the_tree(world: World, client: Client) -> None:
    record = world.ended(client.start("tree", {"depth": 4}, user_id="u"))
    levels = record["result"]
    assert len({level["run"] for level in levels}) == 5
    assert {(level["root"], level["session"], level["user"]) for level in levels} == {
        (record["id"], record["session_id"], "u")
    }
    below = world.execution(levels[1]["run"])
    assert (below["session_id"], below["user_id"], below["root_execution_id"]) == (
        record["session_id"],
        "u",
        record["id"],
    )


def test_children_that_are_only_started_are_started_once(world: World, client: Client) -> None:
    record = world.ended(client.start("fires"))
    assert (record["status"], record["retry_count"]) == ("completed", 1)
    children = [world.ended(run) for run in record["result"]]
    assert [child["payload"]["value"] for child in children] == [1, 2, 3]
    assert {(child["parent_execution_id"], child["step_key"]) for child in children} == {(record["id"], None)}
    assert len(world.notes("child", parent=record["id"])) == 3


def test_a_childs_pydantic_result_is_its_class_again(client: Client) -> None:
    order = {"customer": "c", "lines": []}
    assert client.run("receipt_twice", order) == {"kinds": ["Receipt", "Receipt"], "total": 2}


@pytest.mark.parametrize("value", [0, False, "", [], {}])
def test_a_childs_false_result_is_stored_as_it_is(world: World, client: Client, value: object) -> None:
    """The SDK turns it into None when it reads it: what is stored must not."""
    record = world.ended(client.start("parent_of", {"child": "echo", "payload": {"value": value}}))
    step = world.step(record["id"], "child")
    assert step is not None
    assert (step["outputs"], type(step["outputs"])) == (value, type(value))
