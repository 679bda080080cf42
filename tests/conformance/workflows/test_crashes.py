"""What becomes of runs when the foreign SDK's worker, or the server, ends in the middle of them."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from tests.conformance.workflows.world import PACKAGE, PYTHON, Client, World
from tests.wait import wait_until


@contextmanager
def worker(world: World, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a worker for as long as the block lasts."""
    process = world.start_worker(**environment)
    try:
        yield process
    finally:
        if process in world.processes:
            world.end(process, signal.SIGKILL)


@pytest.fixture(scope="module", autouse=True)
def _deployed(bare_world: World) -> None:
    """Have the project a deployment, whichever test comes first: without one no run is taken."""
    with worker(bare_world):
        pass


def in_the_middle(world: World, client: Client, gate: str) -> str:
    """Start a run and return its id once it is between its two steps."""
    run = client.start("pauses", {"gate": gate})
    world.noted("pausing", run=run)
    return run


def went_through(world: World, run: str, pauses: int) -> dict[str, Any]:
    """Check that a run has ended well, and that no finished step of it has run twice."""
    record = world.ended(run, seconds=60)
    assert (record["status"], record["result"], record["error"]) == ("completed", "through", None)
    assert record["retry_count"] == 0, "no attempt has failed"
    found = [len(world.notes(what, run=run)) for what in ("before", "pausing", "after")]
    assert found == [1, pauses, 1]
    return record


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_another_worker_takes_over(bare_world: World, bare_client: Client, how: int) -> None:
    world, gate = bare_world, str(uuid4())
    with worker(world) as first:
        run = in_the_middle(world, bare_client, gate)
        before = world.execution(run)["assigned_to_worker"]
        world.end(first, how)
        world.open_gate(gate)
        with worker(world):
            record = went_through(world, run, pauses=2)
    assert record["assigned_to_worker"] not in (None, before)


def test_a_run_that_its_worker_gave_up_is_queued_at_once(bare_world: World, bare_client: Client) -> None:
    """A worker that is asked to end confirms a cancellation that nobody wanted: it means that it lets go."""
    world, gate = bare_world, str(uuid4())
    with worker(world) as first:
        run = in_the_middle(world, bare_client, gate)
        world.end(first)
    world.in_status(run, "queued", seconds=10)
    world.open_gate(gate)
    with worker(world):
        went_through(world, run, pauses=2)


def test_a_parent_whose_worker_dies_has_one_child(bare_world: World, bare_client: Client) -> None:
    world, gate = bare_world, str(uuid4())
    with worker(world) as first:
        parent = bare_client.start("parent_of", {"child": "pauses", "payload": {"gate": gate}})
        (pausing,) = world.noted("pausing", parent=parent)
        world.end(first, signal.SIGKILL)
    world.open_gate(gate)
    with worker(world):
        record = world.ended(parent, seconds=60)
    assert (record["status"], record["result"]) == ("completed", "through")
    step = world.step(parent, "child")
    assert step is not None
    assert step["source_execution_id"] == pausing["run"]


@pytest.mark.parametrize("part", ["server", "node"])
def test_a_run_outlives_the_server(bare_world: World, bare_client: Client, part: str) -> None:
    world, gate = bare_world, str(uuid4())
    with worker(world):
        run = in_the_middle(world, bare_client, gate)
        world.live.kill(part)
        world.live.wait_ready()
        world.open_gate(gate)
        went_through(world, run, pauses=1)


def test_a_run_outlives_everything_at_once(bare_world: World, bare_client: Client) -> None:
    world, gate = bare_world, str(uuid4())
    with worker(world) as first:
        run = in_the_middle(world, bare_client, gate)
        world.live.kill_all()
        world.end(first, signal.SIGKILL)
    world.live.start()
    world.open_gate(gate)
    with worker(world):
        went_through(world, run, pauses=2)


def test_waits_outlive_everything(bare_world: World, bare_client: Client) -> None:
    world, topic = bare_world, f"flows/{uuid4()}"
    with worker(world, POLOS_WAIT_THRESHOLD_SECONDS="0") as first:
        runs = [
            bare_client.start("sleeps", {"seconds": 3}),
            bare_client.start("awaits_event", {"topic": topic}),
            bare_client.start("asks", {"key": "q"}),
        ]
        for run in runs:
            world.in_status(run, "waiting")
        world.live.kill_all()
        world.end(first, signal.SIGKILL)
    world.live.start()
    bare_client("publish", topic=topic, data=[{"n": 1}])
    bare_client("resume", workflow="asks", run=runs[2], key="q", data={"n": 2})
    with worker(world):
        results = [world.ended(run)["result"] for run in runs]
    assert (results[0], results[1]["data"], results[2]) == ("rested", {"n": 1}, {"n": 2})


def has_gone(process: subprocess.Popen[str], world: World, run: str) -> bool:
    """Return whether a worker has died, or has nothing left to die of."""
    return process.poll() is not None or world.execution(run)["status"] == "failed"


def test_a_run_that_kills_every_worker_is_given_up(bare_world: World, bare_client: Client) -> None:
    world = bare_world
    run = bare_client.start("kills_its_worker")
    attempts = 0
    while world.execution(run)["status"] != "failed":
        doomed = world.spawn_worker()
        wait_until(partial(has_gone, doomed, world, run), 30, "the worker has died, or the run is given up")
        if doomed.poll() is None:
            world.end(doomed)
            break
        world.processes.remove(doomed)
        attempts += 1
        assert attempts <= 20, "it is dispatched for ever"
    record = world.execution(run)
    assert (record["status"], record["result"]) == ("failed", None)
    assert record["error"]


def test_runs_that_were_submitted_without_a_worker_are_run_by_the_first(bare_world: World, bare_client: Client) -> None:
    runs = bare_client("submit_many", workflow="plain", payloads=[None] * 5)
    assert {bare_world.execution(run)["status"] for run in runs} <= {"queued", "claimed"}
    with worker(bare_world):
        assert [bare_world.ended(run)["result"] for run in runs] == [42] * 5


def test_a_worker_and_its_client_in_one_process(bare_world: World) -> None:
    """The SDK says that it has started before its server listens: the first pushes find nobody."""
    with bare_world.live.log.open("ab") as log:
        done = subprocess.run(
            [PYTHON, "-m", f"{PACKAGE}.run_both", "flows"],
            cwd=bare_world.directory,
            env=bare_world.environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            timeout=60,
            check=True,
        )
    assert json.loads(done.stdout.splitlines()[-1]) == [42, 42, [{"doubled": 2}, {"doubled": 4}]]
