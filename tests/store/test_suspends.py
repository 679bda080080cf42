"""Runs that wait for several things together, at the port: they go on once, after the last of them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from dormice.domain.run import CancelledBy, Run, RunState, WaitKind
from dormice.store.workflows import Attempt, Moved, NewRun, NewWait, Refused, Suspended, WholeStore
from tests.store.run_world import RunWorld

S = RunState


@pytest.fixture
async def world(store: WholeStore) -> RunWorld:
    return await RunWorld.made(store)


def child_of(world: RunWorld, run: Run, step_key: str) -> NewRun:
    return world.new("child", parent_id=run.id, root_id=run.id, step_key=step_key)


async def suspend(
    world: RunWorld, run: Run, *, children: Sequence[NewRun] = (), waits: Sequence[NewWait] = ()
) -> Suspended:
    attempt = Attempt(worker_id="worker", fence=run.fence)
    done = await world.store.runs.suspend(run.id, attempt, children, waits, now=world.tick())
    assert isinstance(done, Suspended)
    return done


def event(step_key: str, topic: str = "t", due_at: int | None = None) -> NewWait:
    return NewWait(step_key=step_key, kind=WaitKind.EVENT, topic=topic, due_at=due_at)


async def children(world: RunWorld, done: Suspended) -> list[Run]:
    return [run for run in done.changed if run.parent_id is not None]


async def test_a_run_goes_on_after_the_last_of_its_children(world: RunWorld) -> None:
    parent = await world.running()
    done = await suspend(world, parent, children=[child_of(world, parent, f"c{n}") for n in range(3)])
    assert done.run.state is S.WAITING
    made = await children(world, done)
    assert [(run.step_key, run.state) for run in made] == [("c0", S.QUEUED), ("c1", S.QUEUED), ("c2", S.QUEUED)]
    assert parent.id not in {run.id for run in (await world.complete(await world.running(made[1]), b"1")).changed}
    await world.fail(await world.running(made[2]), "bad")
    assert (await world.read(parent)).state is S.WAITING
    last = await world.complete(await world.running(made[0]), b"0")
    assert [run.state for run in last.changed if run.id == parent.id] == [S.QUEUED]
    found = {step.step_key: (step.success, step.outputs) for step in await world.store.runs.steps(parent)}
    assert found == {"c0": (True, b"0"), "c1": (True, b"1"), "c2": (False, b"null")}


async def test_a_run_goes_on_after_the_last_of_different_things(world: RunWorld) -> None:
    parent = await world.running()
    moment = NewWait(step_key="moment", kind=WaitKind.TIME, due_at=world.now + 1)
    done = await suspend(world, parent, children=[child_of(world, parent, "c")], waits=[event("e"), moment])
    assert [(due.step_key, due.due_at) for due in done.dues] == [("moment", moment.due_at)]
    assert await world.publish("t", "x") == []
    assert isinstance(await world.store.runs.expire(parent.id, "moment", now=world.tick()), Moved)
    assert (await world.read(parent)).state is S.WAITING
    [child] = await children(world, done)
    await world.complete(await world.running(child))
    assert (await world.read(parent)).state is S.QUEUED
    assert {step.step_key for step in await world.store.runs.steps(parent)} == {"c", "e", "moment"}


async def test_what_was_there_already_lets_a_run_go_on_at_once(world: RunWorld) -> None:
    parent = await world.running()
    await world.publish("t", "before")
    done = await suspend(world, parent, waits=[event("e")])
    assert done.run.state is S.QUEUED
    [step] = await world.store.runs.steps(parent)
    assert json.loads(step.outputs)["event_type"] == "before"


async def test_an_event_is_given_once(world: RunWorld) -> None:
    run = await world.running()
    await world.publish("t", "first", "second")
    for expected in ("first", "second"):
        done = await suspend(world, run, waits=[event(expected)])
        assert done.run.state is S.QUEUED
        step = await world.store.runs.step(run, expected)
        assert step is not None
        assert json.loads(step.outputs)["event_type"] == expected
        run = await world.running(done.run)
    assert (await suspend(world, run, waits=[event("third")])).run.state is S.WAITING


async def test_an_event_of_before_the_run_was_made_is_none(world: RunWorld) -> None:
    await world.publish("t", "early")
    run = await world.running()
    assert (await suspend(world, run, waits=[event("e")])).run.state is S.WAITING


async def test_waiting_twice_is_waiting_once(world: RunWorld) -> None:
    parent = await world.running()
    new = child_of(world, parent, "c")
    first = await suspend(world, parent, children=[new], waits=[event("e", due_at=world.now + 60_000_000)])
    again = await suspend(world, parent, children=[new], waits=[event("e", due_at=world.now + 90_000_000)])
    assert (again.run.state, await children(world, again)) == (S.WAITING, [])
    assert again.dues == first.dues


async def test_a_child_that_ended_before_its_parent_waits_is_its_step(world: RunWorld) -> None:
    parent = await world.running()
    [child] = (await world.submit(child_of(world, parent, "c"))).runs
    await world.complete(await world.running(child), b"5")
    done = await suspend(world, parent, children=[child_of(world, parent, "c")])
    assert (done.run.state, await children(world, done)) == (S.QUEUED, [])
    step = await world.store.runs.step(parent, "c")
    assert step is not None
    assert step.outputs == b"5"


@pytest.mark.parametrize("attempt", [Attempt(worker_id="worker", fence=2), Attempt(worker_id="other", fence=1)])
async def test_only_who_has_a_run_may_have_it_wait(world: RunWorld, attempt: Attempt) -> None:
    parent = await world.running()
    refused = await world.store.runs.suspend(parent.id, attempt, [child_of(world, parent, "c")], [], now=world.tick())
    assert refused == Refused(run=parent)
    assert await world.store.runs.open() == [parent]


async def test_a_run_whose_end_was_asked_for_waits_for_nothing(world: RunWorld) -> None:
    parent = await world.running()
    await world.store.runs.request_cancel(world.project.id, parent.id, CancelledBy.MANUAL, now=world.tick())
    attempt = Attempt(worker_id="worker", fence=1)
    refused = await world.store.runs.suspend(parent.id, attempt, [], [event("e")], now=world.tick())
    assert isinstance(refused, Refused)
    assert refused.run is not None
    assert refused.run.state is S.PENDING_CANCEL


async def given(world: RunWorld, run: Run) -> dict[str, object]:
    """The types of the events that the steps of a run were given."""
    return {step.step_key: json.loads(step.outputs)["event_type"] for step in await world.store.runs.steps(run)}


@pytest.mark.parametrize("published", [["x", "y"], ["x"], []], ids=["both in one request", "one before", "both before"])
async def test_what_a_run_is_given_does_not_depend_on_when_it_waits(world: RunWorld, published: list[str]) -> None:
    run = await world.running()
    for before in ["x", "y"][: 2 - len(published)]:
        await world.publish("t", before)
    later = {2: ["x", "y"], 1: ["y"], 0: []}[len(published)]
    for step_key in ("first", "second", "third"):
        done = await suspend(world, run, waits=[event(step_key)])
        if done.run.state is S.WAITING and later:
            await world.publish("t", *later)
            later = []
        if step_key != "third":
            run = await world.running(await world.read(run))
    assert await given(world, run) == {"first": "x", "second": "y"}
    assert (await world.read(run)).state is S.WAITING


@pytest.mark.parametrize("when", ["before", "in one request", "one by one"])
async def test_each_of_several_waits_is_given_an_event_of_its_own(world: RunWorld, when: str) -> None:
    run = await world.running()
    waits = [event("b"), event("a"), event("c")]  # the first that waits is the first that is given something
    if when == "before":
        await world.publish("t", "x", "y")
    assert (await suspend(world, run, waits=waits)).run.state is S.WAITING
    for types in {"before": [], "in one request": [["x", "y"]], "one by one": [["x"], ["y"]]}[when]:
        assert await world.publish("t", *types) == []
    assert await given(world, run) == {"b": "x", "a": "y"}
    [resumed] = await world.publish("t", "z", "not yet")
    run = await world.running(resumed)
    assert await given(world, run) == {"b": "x", "a": "y", "c": "z"}
    await suspend(world, run, waits=[event("d")])
    assert (await given(world, run))["d"] == "not yet"


async def test_two_runs_are_given_the_same_event(world: RunWorld) -> None:
    runs = [await world.running() for _ in range(2)]
    for run in runs:
        await suspend(world, run, waits=[event("e")])
    await world.publish("t", "x", "y")
    assert [await given(world, run) for run in runs] == [{"e": "x"}] * 2
