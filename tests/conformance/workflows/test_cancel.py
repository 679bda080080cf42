"""Cancellation and time limits of the foreign SDK's runs."""

from __future__ import annotations

import pytest

from tests.conformance.workflows.world import Client, World

WORKER = {"POLOS_WAIT_THRESHOLD_SECONDS": "0"}


@pytest.mark.parametrize("workflow", ["hangs", "hangs_in_a_step"])
def test_a_running_run_is_cancelled(world: World, client: Client, workflow: str) -> None:
    run = client.start(workflow)
    world.noted("started", run=run)
    assert client("cancel", run=run) is True
    record = world.ended(run)
    assert (record["status"], record["cancelled_by"], record["error"]) == ("cancelled", "manual", None)
    assert record["cancelled_at"]
    assert record["completed_at"] >= record["cancelled_at"]
    assert record["assigned_to_worker"] is None
    assert client("cancel", run=run) is False, "it has ended"
    assert world.execution(run) == record


def test_the_worker_has_let_go_when_a_run_is_cancelled(world: World, client: Client) -> None:
    run = client.start("hangs")
    world.noted("started", run=run)
    client("cancel", run=run)
    world.ended(run)
    assert world.notes("unwound", run=run), "cancelled was told before the workflow had ended"


def test_a_run_that_has_ended_is_not_cancelled(world: World, client: Client) -> None:
    run = client.start("plain")
    record = world.ended(run)
    assert client("cancel", run=run) is False
    assert world.execution(run) == record


def test_a_queued_run_is_cancelled_at_once(world: World, client: Client) -> None:
    holder = client.start("in_turn", {"gate": "queued"})
    world.noted("enter", run=holder)
    run = client.start("in_turn", {})
    assert client("cancel", run=run) is True
    assert world.ended(run)["status"] == "cancelled"
    world.open_gate("queued")
    assert world.ended(holder)["status"] == "completed"
    assert world.notes(run=run) == []


def test_a_waiting_run_is_cancelled(world: World, client: Client) -> None:
    run = client.start("sleeps", {"seconds": 600})
    world.in_status(run, "waiting")
    assert client("cancel", run=run) is True
    assert world.ended(run)["status"] == "cancelled"


def test_a_cancelled_run_is_resumed_by_nothing(world: World, client: Client) -> None:
    run = client.start("asks", {"key": "q"})
    world.in_status(run, "waiting")
    client("cancel", run=run)
    record = world.ended(run)
    client("resume", workflow="asks", run=run, key="q", data={})
    assert client.run("plain") == 42
    assert world.execution(run) == record
    assert len(world.notes("dispatched", run=run)) == 1


def test_cancelling_a_parent_cancels_its_child(world: World, client: Client) -> None:
    parent = client.start("parent_of", {"child": "hangs"})
    (started,) = world.noted("started", parent=parent)
    assert client("cancel", run=parent) is True
    records = [world.ended(run) for run in (parent, started["run"])]
    assert [(record["status"], record["cancelled_by"]) for record in records] == [("cancelled", "manual")] * 2


def test_cancelling_a_run_cancels_the_children_that_it_only_started(world: World, client: Client) -> None:
    parent = client.start("fires_and_hangs")
    world.noted("started", run=parent)
    step = world.step(parent, "child")
    assert step is not None
    child = step["outputs"]["id"]
    world.noted("started", run=child)
    client("cancel", run=parent)
    assert [world.ended(run)["status"] for run in (parent, child)] == ["cancelled", "cancelled"]


def test_cancelling_a_child_is_a_failed_step_of_its_parent(world: World, client: Client) -> None:
    parent = client.start("parent_catches", {"child": "hangs"})
    world.in_status(parent, "waiting")
    (started,) = world.noted("started", parent=parent)
    child = started["run"]
    client("cancel", run=child)
    assert world.ended(child)["status"] == "cancelled"
    record = world.ended(parent)
    assert (record["status"], record["cancelled_at"]) == ("completed", None)
    assert record["result"].startswith("caught: ")
    assert "cancelled" in record["result"]


def test_a_cancelled_child_is_a_failure_in_its_batch(world: World, client: Client) -> None:
    parent = client.start("batch", {"children": [("hangs", None), ("plain", None)]})
    world.in_status(parent, "waiting")
    (started,) = world.noted("started", parent=parent)
    child = started["run"]
    client("cancel", run=child)
    record = world.ended(parent)
    assert [result["success"] for result in record["result"]] == [False, True]
    assert "cancelled" in record["result"][0]["error"]


def test_a_run_past_its_time_is_cancelled(world: World, client: Client) -> None:
    record = world.ended(client.start("hangs", run_timeout_seconds=1))
    assert (record["status"], record["cancelled_by"], record["error"]) == ("cancelled", "timeout", None)
    assert record["cancelled_at"] >= record["started_at"]


def test_waiting_is_not_counted_as_running(world: World, client: Client) -> None:
    record = world.ended(client.start("sleeps", {"seconds": 3}, run_timeout_seconds=1))
    assert (record["status"], record["result"]) == ("completed", "rested")


def test_a_workflow_that_cancels_itself_is_not_left_running(world: World, client: Client) -> None:
    record = world.ended(client.start("cancels_itself"))
    assert record["status"] in {"failed", "cancelled"}
    assert 1 <= len(world.notes("attempt", run=record["id"])) <= 10
