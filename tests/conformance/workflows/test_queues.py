"""Queues and concurrency keys of the foreign SDK: a limit is never exceeded, and who waits holds no place."""

from __future__ import annotations

from uuid import uuid4

from tests.conformance.workflows.world import Client, World, overlaps

WORKER = {"POLOS_WAIT_THRESHOLD_SECONDS": "0"}


def test_a_queue_of_one_runs_in_turn_and_in_order(world: World, client: Client) -> None:
    runs = client("submit_many", workflow="in_turn", payloads=[{"n": n} for n in range(20)])
    assert {world.ended(run)["status"] for run in runs} == {"completed"}
    notes = [line for line in world.notes() if line["run"] in runs]
    assert overlaps(notes) == 1
    assert [line["n"] for line in notes if line["what"] == "enter"] == list(range(20))


def test_two_workflows_share_a_queue(world: World, client: Client) -> None:
    gate = str(uuid4())
    names = ["in_pairs", "also_in_pairs", "in_pairs", "also_in_pairs"]
    runs = [client.start(name, {"gate": gate}) for name in names]
    world.noted("enter", run=runs[0])
    world.noted("enter", run=runs[1])
    assert [world.execution(run)["status"] for run in runs] == ["running", "running", "queued", "queued"]
    world.open_gate(gate)
    assert {world.ended(run)["status"] for run in runs} == {"completed"}
    assert overlaps([line for line in world.notes() if line["run"] in runs]) == 2


def test_a_limit_is_for_each_key(world: World, client: Client) -> None:
    gate = str(uuid4())
    keys = ["a", "a", "b", "b", "c"]
    runs = [client.start("in_turn", {"gate": gate, "key": key}, concurrency_key=key) for key in keys]
    for n in (0, 2, 4):
        world.noted("enter", run=runs[n])
    assert [world.execution(run)["status"] for run in (runs[1], runs[3])] == ["queued", "queued"]
    world.open_gate(gate)
    assert {world.ended(run)["status"] for run in runs} == {"completed"}
    for key in "abc":
        assert overlaps([line for line in world.notes() if line["run"] in runs and line["key"] == key]) == 1


def test_a_queue_named_in_the_call_is_made_with_the_limit_of_the_call(world: World, client: Client) -> None:
    queue = f"made-{uuid4()}"
    options = {"queue_name": queue, "queue_concurrency_limit": 1}
    runs = [client("submit", workflow="anywhere", payload={"n": n}, **options)["id"] for n in range(5)]
    records = [world.ended(run) for run in runs]
    assert {(record["status"], record["queue_name"]) for record in records} == {("completed", queue)}
    assert overlaps([line for line in world.notes() if line["run"] in runs]) == 1


def test_a_later_call_does_not_change_a_queues_limit(world: World, client: Client) -> None:
    options = {"queue_name": "in_turn", "queue_concurrency_limit": 50}
    runs = [client("submit", workflow="in_turn", payload={"n": n}, **options)["id"] for n in range(5)]
    assert {world.ended(run)["status"] for run in runs} == {"completed"}
    assert overlaps([line for line in world.notes() if line["run"] in runs]) == 1


def test_who_waits_holds_no_place(world: World, client: Client) -> None:
    topic = f"flows/{uuid4()}"
    runs = [client.start("waits_in_turn", {"n": n, "topic": topic}) for n in range(4)]
    for run in runs:
        world.in_status(run, "waiting")
    client("publish", topic=topic, data=[{}])
    assert {world.ended(run)["status"] for run in runs} == {"completed"}


def test_a_parent_makes_room_for_its_child(client: Client) -> None:
    assert client.run("parent_in_turn", {"depth": 5}) == "bottom"


def test_a_worker_is_given_no_more_than_it_takes(world: World, client: Client) -> None:
    """The SDK's own limit is 100: a worker that is full answers 429, which costs the run nothing."""
    gate = str(uuid4())
    runs = client("submit_many", workflow="anywhere", payloads=[{"gate": gate}] * 130)
    world.noted("enter", times=100)
    queued = [run for run in runs if world.execution(run)["status"] == "queued"]
    assert len(queued) == 30
    world.open_gate(gate)
    records = [world.ended(run) for run in runs]
    assert {(record["status"], record["retry_count"]) for record in records} == {("completed", 0)}
    notes = [line for line in world.notes() if line["run"] in set(runs)]
    assert overlaps(notes) == 100
    assert len([line for line in notes if line["what"] == "enter"]) == 130
