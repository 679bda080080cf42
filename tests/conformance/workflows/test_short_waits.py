"""Waits of the foreign SDK that its worker sleeps itself: those of up to ten seconds, unless it is told otherwise."""

from __future__ import annotations

from tests.conformance.workflows.world import Client, World


def test_a_short_wait_is_slept_in_the_worker(world: World, client: Client) -> None:
    run = client.start("sleeps", {"seconds": 1})
    world.noted("dispatched", run=run)
    record = world.ended(run)
    assert (record["status"], record["result"]) == ("completed", "rested")
    assert len(world.notes("dispatched", run=run)) == 1, "it has never left the worker"
    step = world.step(run, "nap")
    assert step is not None
    assert list(step["outputs"]) == ["wait_until"]


def test_a_longer_wait_leaves_the_worker(world: World, client: Client) -> None:
    run = client.start("sleeps", {"seconds": 11})
    world.in_status(run, "waiting", seconds=5)
    assert world.ended(run)["status"] == "completed"
    assert len(world.notes("dispatched", run=run)) == 2


def test_a_wait_of_nothing_fails(world: World, client: Client) -> None:
    record = world.ended(client.start("sleeps", {"seconds": 0}))
    assert (record["status"], record["error"]) == ("failed", "Wait duration must be positive")
