"""Runs at the port: every move, what follows from it for the runs around, and who may make it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dormice.domain.run import CancelledBy, Run, RunState, Step, WaitKind
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed
from dormice.store.workflows import Attempt, Moved, ParentWait, Refused, RunResult, WholeStore
from tests.store.run_world import MOST_CRASHES, RunWorld
from tests.store.world import MINUTE

S = RunState


@pytest.fixture
async def world(store: WholeStore) -> RunWorld:
    return await RunWorld.made(store)


async def steps(world: RunWorld, run: Run) -> dict[str, Any]:
    found = await world.store.runs.steps(run)
    return {step.step_key: (step.success, json.loads(step.outputs), step.error) for step in found}


async def test_a_run_is_read_as_it_was_made(world: RunWorld) -> None:
    new = world.new(
        initial_state=b'{"s": 2}', concurrency_key="k", session_id="s", user_id="u", run_timeout_seconds=9, priority=3
    )
    [made] = (await world.submit(new)).runs
    assert await world.read(made) == made
    assert (made.state, made.revision, made.fence, made.retry_count) == (S.QUEUED, 1, 0, 0)
    given = await world.store.runs.input(made)
    assert (given.payload, given.initial_state) == (b'{"n": 1}', b'{"s": 2}')
    assert await world.store.runs.open() == [made]


async def test_another_project_sees_no_run(world: RunWorld) -> None:
    run = await world.queued()
    assert await world.store.runs.get("00000000-0000-4000-8000-000000000000", run.id) is None
    refused = await world.store.runs.request_cancel(
        "00000000-0000-4000-8000-000000000000", run.id, CancelledBy.MANUAL, now=1
    )
    assert refused == Refused()
    assert (await world.read(run)).state is S.QUEUED


async def test_a_key_makes_runs_once(world: RunWorld) -> None:
    claim = IdempotencyClaim(scope="s", key="k", request_hash="h", now=world.now, keep_until=world.now + MINUTE)
    first, second = world.new(), world.new()
    made = await world.submit(first, second, claim=claim)
    again = await world.store.runs.submit([world.new(), world.new()], None, claim)
    assert again == Replayed(",".join(run.id for run in made.runs))
    other = IdempotencyClaim(scope="s", key="k", request_hash="x", now=world.now, keep_until=world.now + MINUTE)
    assert isinstance(await world.store.runs.submit([world.new()], None, other), KeyReused)
    assert len(await world.store.runs.open()) == 2


async def test_one_claim_wins(world: RunWorld) -> None:
    run = await world.queued()
    first = await world.store.runs.claim(run.id, "one", now=world.tick())
    second = await world.store.runs.claim(run.id, "two", now=world.tick())
    assert isinstance(first, Moved)
    assert (first.run.state, first.run.worker_id, first.run.fence) == (S.CLAIMED, "one", 1)
    assert second == Refused(run=first.run)


async def test_a_worker_accepts_what_was_claimed_for_it(world: RunWorld) -> None:
    run = await world.queued()
    await world.store.runs.claim(run.id, "one", now=world.tick())
    stale = await world.store.runs.accept(run.id, 2, now=world.tick(), accepted_at=5)
    assert isinstance(stale, Refused)
    accepted = await world.store.runs.accept(run.id, 1, now=world.tick(), accepted_at=5)
    assert isinstance(accepted, Moved)
    assert (accepted.run.state, accepted.run.running_since, accepted.run.started_at) == (S.RUNNING, 5, world.now)


async def test_started_at_is_the_first_start(world: RunWorld) -> None:
    run = await world.running()
    released = await world.store.runs.release(
        run.id, run.fence, now=world.tick(), not_before=7, crashed=True, most_crashes=MOST_CRASHES
    )
    assert isinstance(released, Moved)
    assert (released.run.state, released.run.worker_id, released.run.crashes) == (S.QUEUED, None, 1)
    again = await world.running(released.run)
    assert (again.started_at, again.fence, again.retry_count) == (run.started_at, 2, 0)


async def test_a_run_that_loses_too_many_workers_fails(world: RunWorld) -> None:
    run = await world.running()
    for _ in range(MOST_CRASHES):
        await world.store.runs.release(
            run.id, run.fence, now=world.tick(), not_before=0, crashed=True, most_crashes=MOST_CRASHES
        )
        run = await world.running(await world.read(run))
    ended = await world.store.runs.release(
        run.id, run.fence, now=world.tick(), not_before=0, crashed=True, most_crashes=MOST_CRASHES
    )
    assert isinstance(ended, Moved)
    assert ended.run.state is S.FAILED
    assert "workers were lost" in (ended.run.error or "")


async def test_completing_twice_is_completing_once(world: RunWorld) -> None:
    run = await world.running()
    first = await world.complete(run, b'{"x": [1]}', output_schema_name="m.C", final_state=b"{}")
    again = await world.complete(run, b"2")
    assert (first.run.state, again.run, again.changed) == (S.COMPLETED, first.run, ())
    assert (await world.store.runs.record(run))[1] == RunResult(
        result=b'{"x": [1]}', output_schema_name="m.C", final_state=b"{}"
    )
    assert await world.store.runs.open() == []


async def test_another_worker_and_an_earlier_attempt_are_refused(world: RunWorld) -> None:
    run = await world.running()
    for attempt in (Attempt(worker_id="other"), Attempt(worker_id="worker", fence=run.fence + 1)):
        refused = await world.store.runs.complete(run.id, attempt, RunResult(result=b"1"), now=world.tick())
        assert refused == Refused(run=run)
        step = Step(step_key="s", outputs=b"1", completed_at=world.tick())
        assert await world.store.runs.put_step(world.project.id, run.id, attempt, step) == Refused(run=run)
    assert await steps(world, run) == {}


async def test_a_failed_attempt_is_followed_by_others_and_success_clears_the_error(world: RunWorld) -> None:
    run = await world.running()
    again = (await world.fail(run, "first", retryable=True)).run
    assert (again.state, again.retry_count, again.error, again.worker_id) == (S.QUEUED, 1, "first", None)
    assert again.not_before > 0
    done = await world.complete(await world.running(again))
    assert (done.run.state, done.run.error, done.run.retry_count) == (S.COMPLETED, None, 1)


async def test_attempts_are_counted_to_the_end(world: RunWorld) -> None:
    run = await world.running(max_retries=2)
    for _ in range(2):
        run = await world.running((await world.fail(run, retryable=True)).run)
    ended = (await world.fail(run, "last", retryable=True)).run
    assert (ended.state, ended.retry_count, ended.error) == (S.FAILED, 3, "last")
    fatal = (await world.fail(await world.running(), "fatal")).run
    assert (fatal.state, fatal.retry_count) == (S.FAILED, 1)


async def test_a_step_is_kept_as_it_came(world: RunWorld) -> None:
    run = await world.running()
    step = Step(step_key="a/b ?#ü", outputs=b'{"v":  1}', output_schema_name="m.C", completed_at=world.tick())
    assert isinstance(await world.store.runs.put_step(world.project.id, run.id, Attempt(), step), Moved)
    assert await world.store.runs.step(run, "a/b ?#ü") == step
    assert await world.store.runs.step(run, "a") is None


async def test_an_ended_run_takes_no_step(world: RunWorld) -> None:
    run = await world.running()
    await world.complete(run)
    step = Step(step_key="s", outputs=b"1", completed_at=world.tick())
    assert isinstance(await world.store.runs.put_step(world.project.id, run.id, Attempt(), step), Refused)


async def test_a_parent_waits_for_its_child_and_gets_its_result(world: RunWorld) -> None:
    parent = await world.running()
    child = await world.child(parent)
    assert (await world.read(parent)).state is S.WAITING
    done = await world.complete(await world.running(child), b'{"r": 1}', output_schema_name="m.C")
    assert {run.id: run.state for run in done.changed} == {child.id: S.COMPLETED, parent.id: S.QUEUED}
    step = await world.store.runs.step(parent, "child")
    assert step is not None
    assert (step.outputs, step.success, step.source_run_id) == (b'{"r": 1}', True, child.id)
    assert step.output_schema_name == "m.C"


async def test_a_child_that_fails_for_good_is_a_failed_step(world: RunWorld) -> None:
    parent = await world.running()
    child = await world.running(await world.child(parent))
    retried = await world.fail(child, "once", retryable=True)
    assert [run.id for run in retried.changed] == [child.id]
    assert (await world.read(parent)).state is S.WAITING
    await world.fail(await world.running(retried.run), "for good")
    assert await steps(world, parent) == {"child": (False, None, b'{"message":"for good"}')}
    assert (await world.read(parent)).state is S.QUEUED


async def test_a_step_submits_its_child_once(world: RunWorld) -> None:
    parent = await world.running()
    child = await world.child(parent)
    other = await world.child(parent, "other")
    await world.complete(await world.running(child))
    parent = await world.running(await world.read(parent))
    wait = ParentWait(run_id=parent.id, step_key="other", kind=WaitKind.RUN)
    again = await world.submit(world.new("child", parent_id=parent.id, step_key="other"), wait=wait)
    assert ([run.id for run in again.runs], again.made) == ([other.id], False)
    assert (await world.read(parent)).state is S.WAITING


async def test_a_child_that_ended_before_its_parent_waits_for_it_again_lets_it_go_on(world: RunWorld) -> None:
    parent = await world.running()
    child = await world.child(parent)
    await world.complete(await world.running(child))
    parent = await world.running(await world.read(parent))
    wait = ParentWait(run_id=parent.id, step_key="child", kind=WaitKind.RUN)
    again = await world.submit(world.new("child", parent_id=parent.id, step_key="child"), wait=wait)
    assert [run.id for run in again.runs] == [child.id]
    assert (await world.read(parent)).state is S.QUEUED


async def test_a_batch_is_one_step_in_its_order_once_all_have_ended(world: RunWorld) -> None:
    parent = await world.running()
    first, second, third = await world.batch(parent, 3)
    await world.complete(await world.running(third), b"3")
    await world.fail(await world.running(second), "bad")
    assert await steps(world, parent) == {}
    await world.complete(await world.running(first), b"1")
    success, outputs, error = (await steps(world, parent))["batch"]
    assert (success, error) == (True, None)
    assert [one["success"] for one in outputs] == [True, False, True]
    assert (outputs[0]["result"], outputs[1]["error"], outputs[2]["result"]) == (1, "bad", 3)
    assert (await world.read(parent)).state is S.QUEUED


async def test_a_cancelled_member_counts_as_ended(world: RunWorld) -> None:
    parent = await world.running()
    first, second = await world.batch(parent, 2)
    await world.store.runs.request_cancel(world.project.id, first.id, CancelledBy.MANUAL, now=world.tick())
    await world.complete(await world.running(second), b"2")
    _, outputs, _ = (await steps(world, parent))["batch"]
    assert [one["success"] for one in outputs] == [False, True]


async def test_a_cancel_goes_down_the_tree_and_never_up(world: RunWorld) -> None:
    root = await world.running()
    middle = await world.running(await world.child(root))
    leaf = await world.running(await world.child(middle))
    sibling = await world.child(await world.running(), "x")
    asked = await world.store.runs.request_cancel(world.project.id, middle.id, CancelledBy.MANUAL, now=world.tick())
    assert isinstance(asked, Moved)
    states = {run.id: run.state for run in asked.changed}
    assert states == {middle.id: S.CANCELLED, leaf.id: S.PENDING_CANCEL, root.id: S.QUEUED}
    assert (await steps(world, root))["child"][0] is False
    assert (await world.read(sibling)).state is S.QUEUED
    ended = await world.store.runs.cancelled(leaf.id, Attempt(worker_id="worker"), None, now=world.tick())
    assert isinstance(ended, Moved)
    assert (ended.run.state, ended.run.cancelled_by) == (S.CANCELLED, CancelledBy.MANUAL)
    assert ended.run.completed_at is not None


async def test_a_cancel_goes_down_a_tree_of_any_depth(world: RunWorld) -> None:
    tree = [await world.queued()]
    for _ in range(1_500):
        tree.append(await world.queued(parent_id=tree[-1].id, root_id=tree[0].id))
    await world.store.runs.request_cancel(world.project.id, tree[0].id, CancelledBy.MANUAL, now=world.tick())
    assert (await world.read(tree[-1])).state is S.CANCELLED


@pytest.mark.parametrize("cancelled", ["root", "middle"])
async def test_a_cancel_finds_what_is_open_below_runs_that_have_ended(world: RunWorld, cancelled: str) -> None:
    root = await world.running()
    middle = await world.running(parent_id=root.id, root_id=root.id)
    ended = await world.running(parent_id=middle.id, root_id=root.id)
    ended_too = await world.running(parent_id=ended.id, root_id=root.id)
    left = [
        await world.queued(parent_id=ended_too.id, root_id=root.id),
        await world.running(parent_id=ended_too.id, root_id=root.id),
    ]
    for run in (ended_too, ended):
        await world.complete(run)
    beside = await world.queued(parent_id=root.id, root_id=root.id)
    top = {"root": root, "middle": middle}[cancelled]
    asked = await world.store.runs.request_cancel(world.project.id, top.id, CancelledBy.MANUAL, now=world.tick())
    assert isinstance(asked, Moved)
    changed = {run.id: run.state for run in asked.changed}
    wanted = {middle.id: S.PENDING_CANCEL, left[0].id: S.CANCELLED, left[1].id: S.PENDING_CANCEL}
    of_root = {root.id: S.PENDING_CANCEL, beside.id: S.CANCELLED}
    assert changed == (wanted | of_root if cancelled == "root" else wanted)


async def test_a_cancel_is_final(world: RunWorld) -> None:
    run = await world.running()
    await world.store.runs.request_cancel(world.project.id, run.id, CancelledBy.MANUAL, now=world.tick())
    step = Step(step_key="s", outputs=b"1", completed_at=world.tick())
    assert isinstance(await world.store.runs.put_step(world.project.id, run.id, Attempt(), step), Refused)
    late = await world.store.runs.complete(
        run.id, Attempt(worker_id="worker"), RunResult(result=b"1"), now=world.tick()
    )
    assert isinstance(late, Refused)
    assert late.run is not None
    assert late.run.state is S.CANCELLED
    again = await world.store.runs.request_cancel(world.project.id, run.id, CancelledBy.MANUAL, now=world.tick())
    assert isinstance(again, Refused)


async def test_a_worker_may_say_first_that_a_run_ran_too_long(world: RunWorld) -> None:
    run = await world.running(run_timeout_seconds=1)
    unasked = await world.store.runs.cancelled(run.id, Attempt(worker_id="worker"), None, now=world.tick())
    assert isinstance(unasked, Refused)
    ended = await world.store.runs.cancelled(run.id, Attempt(worker_id="worker"), CancelledBy.TIMEOUT, now=world.tick())
    assert isinstance(ended, Moved)
    assert (ended.run.state, ended.run.cancelled_by) == (S.CANCELLED, CancelledBy.TIMEOUT)


async def test_a_moment_ends_a_wait(world: RunWorld) -> None:
    run = await world.running()
    due = world.now + MINUTE
    assert (await world.wait(run, "t", WaitKind.TIME, due_at=due)).run.state is S.WAITING
    [entry] = await world.store.runs.dues()
    assert (entry.run_id, entry.step_key, entry.due_at) == (run.id, "t", due)
    assert isinstance(await world.store.runs.expire(run.id, "t", now=due - 1), Refused)
    expired = await world.store.runs.expire(run.id, "t", now=due)
    assert isinstance(expired, Moved)
    assert expired.run.state is S.QUEUED
    success, outputs, _ = (await steps(world, run))["t"]
    assert (success, outputs["success"]) == (True, True)
    assert await world.store.runs.dues() == []


async def test_the_waits_of_runs_that_wait_are_open(world: RunWorld) -> None:
    run, other = await world.running(), await world.running()
    await world.wait(run, "t", WaitKind.TIME, due_at=world.now + MINUTE)
    await world.wait(run, "e", WaitKind.EVENT, topic="topic")
    await world.wait(other, "t", WaitKind.TIME, due_at=world.now)
    await world.store.runs.expire(other.id, "t", now=world.tick())
    found = {(wait.run_id, wait.step_key, wait.kind) for wait in await world.store.runs.open_waits()}
    assert found == {(run.id, "t", WaitKind.TIME), (run.id, "e", WaitKind.EVENT)}


async def test_a_run_that_is_made_with_a_fault_has_failed(world: RunWorld) -> None:
    made = await world.submit(world.new(fault="payload['n'] is wrong"))
    [run] = made.runs
    assert (run.state, run.error, run.completed_at) == (S.FAILED, "payload['n'] is wrong", run.created_at)
    assert await world.store.runs.find(run.id) == run
    assert await world.store.runs.open() == []


async def test_a_wait_that_is_begun_again_keeps_its_moment(world: RunWorld) -> None:
    run = await world.running()
    due = world.now + MINUTE
    await world.wait(run, "t", WaitKind.TIME, due_at=due)
    await world.wait(run, "t", WaitKind.TIME, due_at=due + MINUTE)
    assert [entry.due_at for entry in await world.store.runs.dues()] == [due]


async def test_an_event_ends_a_wait_of_its_project(world: RunWorld) -> None:
    run = await world.running()
    await world.wait(run, "e", WaitKind.EVENT, topic="t/opic")
    assert await world.publish("other") == []
    [resumed] = await world.publish("t/opic", "a", "b")
    assert (resumed.id, resumed.state) == (run.id, S.QUEUED)
    _, outputs, _ = (await steps(world, run))["e"]
    assert (outputs["event_type"], outputs["data"]) == ("b", {"e": 1})
    assert set(outputs) == {"id", "sequence_id", "topic", "event_type", "data", "created_at"}


async def test_an_event_that_came_just_before_its_wait_is_found(world: RunWorld) -> None:
    await world.publish("t", "long ago")
    run = await world.running()
    await world.publish("t", "just now")
    waiting = await world.wait(run, "e", WaitKind.EVENT, topic="t")
    assert waiting.run.state is S.QUEUED
    assert (await steps(world, run))["e"][1]["event_type"] == "just now"


async def test_a_second_wait_is_given_the_next_event(world: RunWorld) -> None:
    run = await world.running()
    await world.publish("t", "one", "two")
    await world.wait(run, "e1", WaitKind.EVENT, topic="t")
    run = await world.running(await world.read(run))
    await world.wait(run, "e2", WaitKind.EVENT, topic="t")
    run = await world.running(await world.read(run))
    assert (await world.wait(run, "e3", WaitKind.EVENT, topic="t")).run.state is S.WAITING
    found = await steps(world, run)
    assert [found[key][1]["event_type"] for key in ("e1", "e2")] == ["one", "two"]


async def test_an_answer_that_came_before_the_suspension_was_known_is_found(world: RunWorld) -> None:
    run = await world.running()
    await world.publish(run.topic, "resume_s")
    await world.publish(run.topic, "suspend_s", run_id=run.id)
    await world.publish(run.topic, "resume_other", "resume_s")
    waiting = await world.wait(run, "s", WaitKind.SUSPEND, topic=run.topic, event_type="resume_s")
    assert waiting.run.state is S.QUEUED
    assert (await steps(world, run))["s"][1]["sequence_id"] == 4


async def test_a_suspension_waits_for_its_own_answer(world: RunWorld) -> None:
    run = await world.running()
    await world.publish(run.topic, "suspend_s", run_id=run.id)
    await world.wait(run, "s", WaitKind.SUSPEND, topic=run.topic, event_type="resume_s", due_at=world.now + MINUTE)
    assert await world.publish(run.topic, "resume_x") == []
    expired = await world.store.runs.expire(run.id, "s", now=world.now + MINUTE)
    assert isinstance(expired, Moved)
    success, _, error = (await steps(world, run))["s"]
    assert success is False
    assert b"expired at" in error


async def test_what_a_worker_reports_of_a_run_that_waits_counts(world: RunWorld) -> None:
    run = await world.running()
    await world.wait(run, "t", WaitKind.TIME, due_at=world.now + MINUTE)
    again = (await world.fail(run, "the answer was lost", retryable=True)).run
    assert (again.state, again.retry_count) == (S.QUEUED, 1)


async def test_a_run_that_was_cancelled_waits_for_nothing(world: RunWorld) -> None:
    run = await world.running()
    await world.wait(run, "e", WaitKind.EVENT, topic="t", due_at=world.now + MINUTE)
    await world.store.runs.request_cancel(world.project.id, run.id, CancelledBy.MANUAL, now=world.tick())
    assert await world.publish("t", "late") == []
    assert await world.store.runs.dues() == []
    assert (await world.read(run)).state is S.CANCELLED


async def test_finished_trees_are_deleted_and_open_ones_are_kept(world: RunWorld) -> None:
    parent = await world.running()
    child = await world.child(parent)
    await world.complete(await world.running(child))
    done = await world.running()
    step = Step(step_key="s", outputs=b"1", completed_at=world.tick())
    await world.store.runs.put_step(world.project.id, done.id, Attempt(), step)
    await world.complete(done)
    await world.publish("t", "old")
    while await world.store.delete_finished(world.now + MINUTE):
        pass
    assert await world.store.runs.get(world.project.id, done.id) is None
    assert (await world.read(child)).state is S.COMPLETED
    assert await world.store.events.page(world.project.id, "t", after=0, since=None, limit=9) == []
