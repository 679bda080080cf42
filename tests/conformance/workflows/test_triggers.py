"""Events that start workflows of the foreign SDK, one by one or some together."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from tests.conformance.workflows.world import Client, World
from tests.wait import wait_until

MODULES = ("trigger_flows",)


def triggered(world: World, marker: str, count: int) -> list[dict[str, Any]]:
    """Return the diary's lines of runs that were started by events with a marker, once they hold that many events."""

    def mine() -> list[dict[str, Any]] | None:
        lines = [line for line in world.notes("triggered") if marker in str(line["payload"])]
        events = sum(len(line["payload"].get("events", [0])) for line in lines)
        return lines if events >= count else None

    return wait_until(mine, 30, f"{count} events of {marker}")


def test_each_event_starts_a_run(world: World, client: Client) -> None:
    marker = str(uuid4())
    numbers = client("publish", topic="flows/one", data=[{"m": marker, "n": n} for n in range(3)], event_type="told")
    lines = triggered(world, marker, 3)
    payloads = sorted((line["payload"] for line in lines), key=lambda payload: int(payload["sequence_id"]))
    assert [payload["sequence_id"] for payload in payloads] == numbers
    assert [payload["data"] for payload in payloads] == [{"m": marker, "n": n} for n in range(3)]
    assert all(
        set(payload) == {"id", "sequence_id", "topic", "event_type", "data", "created_at"} for payload in payloads
    )
    record = world.ended(lines[0]["run"])
    assert (record["status"], record["session_id"], record["workflow_id"]) == ("completed", None, "on_one")
    assert record["payload"] == lines[0]["payload"]


def test_events_start_a_run_together_once_they_are_enough(world: World, client: Client) -> None:
    marker = str(uuid4())
    client("publish", topic="flows/some", data=[{"m": marker, "n": n} for n in range(6)])
    lines = triggered(world, marker, 6)
    assert [len(line["payload"]["events"]) for line in lines] == [3, 3]
    numbers = sorted(event["data"]["n"] for line in lines for event in line["payload"]["events"])
    assert numbers == list(range(6))


def test_events_that_are_not_enough_start_a_run_after_a_while(world: World, client: Client) -> None:
    marker = str(uuid4())
    client("publish", topic="flows/some", data=[{"m": marker, "n": n} for n in range(2)])
    (line,) = triggered(world, marker, 2)
    assert [event["data"]["n"] for event in line["payload"]["events"]] == [0, 1]


def test_no_event_starts_two_runs(world: World, client: Client) -> None:
    marker = str(uuid4())
    for n in range(100):
        client("publish", topic="flows/one", data=[{"n": n, "m": marker}])
    lines = triggered(world, marker, 100)
    assert len(lines) == len({line["payload"]["id"] for line in lines}) == 100
