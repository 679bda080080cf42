"""Races between runs, workers and clients, one at a time: each test holds one of them still until the other has gone by."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dormice.domain.errors import Conflict
from dormice.domain.run import Run, RunState, Step, WaitKind
from dormice.engine.runs.dispatcher import MOST_FAILURES
from dormice.engine.runs.events import EventOrder
from dormice.engine.runs.orders import RunOrder, Submission, WorkerOrder
from dormice.store.projects import Worker
from dormice.store.workflows import Attempt, NewWait, RunResult
from dormice.workers.interface import CancelAnswer, PushAnswer
from tests.engine.run_serving import RunServer, serving_runs
from tests.engine.scripted_node import MovedClock
from tests.wait import wait_until_async

SECONDS = 10.0


class HeldPushes:
    """A worker that has what it was given when the test lets the push through."""

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []
        self.taken: set[str] = set()
        self.through = asyncio.Event()
        self.through.set()
        self.asked_to_cancel: list[str] = []
        self.rejected = 0
        """So many pushes are answered no, all at once."""
        self.dead = False
        self.searched_for = 0

    async def execute(self, url: str, worker_id: str, body: bytes) -> PushAnswer:
        order = json.loads(body)
        self.given.append(order)
        if len(self.given) <= self.rejected:
            if len(self.given) == self.rejected:
                self.through.set()
            await self.through.wait()
            return PushAnswer.REJECTED
        await self.through.wait()
        self.taken.add(order["execution_id"])
        return PushAnswer.ACCEPTED

    async def cancel(self, url: str, worker_id: str, run_id: str) -> CancelAnswer:
        self.asked_to_cancel.append(run_id)
        if self.dead:
            return CancelAnswer.FAILED
        return CancelAnswer.REQUESTED if run_id in self.taken else CancelAnswer.UNKNOWN

    async def listens(self, url: str, worker_id: str) -> bool:
        self.searched_for += 1
        return not self.dead

    async def held(self, url: str, worker_id: str) -> int | None:
        return len(self.taken)


@pytest.fixture
def pushes() -> HeldPushes:
    return HeldPushes()


@pytest.fixture
async def serving(tmp_path: Path, clock: MovedClock, pushes: HeldPushes) -> AsyncIterator[RunServer]:
    async with serving_runs(tmp_path, clock, pushes) as server:
        await with_worker(server)
        yield server


async def with_worker(server: RunServer) -> Worker:
    """Have a worker that is called."""
    order = WorkerOrder(deployment_id="d", mode="push", url="http://w", max_concurrent=9, capabilities=b"{}")
    worker = await server.runs.workers.register(server.project, order)
    server.runs.workers.online(server.project, worker.id)
    return worker


async def submit(server: RunServer, workflow_id: str = "flow", **fields: Any) -> Run:
    submission = Submission(runs=[RunOrder(workflow_id=workflow_id, payload=b"{}")], **fields)
    [run] = await server.runs.runs.submit(server.caller, server.project, submission)
    return run


async def in_state(server: RunServer, run: Run, *states: RunState) -> Run:
    async def look() -> Run | None:
        found = await server.runs.runs.find(server.project, run.id)
        return found if found.state in states else None

    return await wait_until_async(look, SECONDS, f"the run is {states}")


async def _nap(server: RunServer, run: Run, seconds: float) -> None:
    due = server.clock.now() + int(seconds * 1_000_000)
    wait = NewWait(step_key="nap", kind=WaitKind.TIME, due_at=due)
    await server.runs.attempts.wait(server.project, run.id, Attempt(), wait)


async def test_a_wait_that_is_asked_for_again_ends_when_it_was_to_end_first(
    serving: RunServer, clock: MovedClock
) -> None:
    """A workflow that waits for two things is replayed when one has come, and then asks for the other one again."""
    run = await submit(serving)
    await in_state(serving, run, RunState.RUNNING)
    await _nap(serving, run, 60)
    clock.forward(30)
    await _nap(serving, run, 60)
    clock.forward(31)
    serving.runs.wake()
    assert await wait_until_async(lambda: _step(serving, run), SECONDS, "the wait has ended")


async def test_a_wait_that_is_asked_for_again_for_a_sooner_moment_ends(serving: RunServer, clock: MovedClock) -> None:
    run = await submit(serving)
    await in_state(serving, run, RunState.RUNNING)
    await _nap(serving, run, 60)
    await _nap(serving, run, -1)
    await in_state(serving, await submit(serving), RunState.RUNNING)
    clock.forward(61)
    serving.runs.wake()
    assert await wait_until_async(lambda: _step(serving, run), SECONDS, "the wait has ended")


async def _step(server: RunServer, run: Run) -> Step | None:
    return next(iter(await server.runs.attempts.steps(server.project, run.id)), None)


async def test_a_child_that_nobody_waits_for_is_refused_once_the_end_of_its_parent_was_asked_for(
    serving: RunServer,
) -> None:
    run = await submit(serving)
    await in_state(serving, run, RunState.RUNNING)
    await serving.runs.runs.cancel(serving.project, run.id)
    with pytest.raises(Conflict):
        await submit(serving, "child", parent_id=run.id)


async def test_a_child_that_was_cancelled_is_not_submitted_again(serving: RunServer) -> None:
    """The answer to the first request was lost, so the worker asks again."""
    run = await submit(serving)
    await in_state(serving, run, RunState.RUNNING)
    child = await submit(serving, "child", parent_id=run.id, step_key="invoke", wait=True)
    held = await in_state(serving, child, RunState.RUNNING)
    await serving.runs.runs.cancel(serving.project, child.id)
    await serving.runs.attempts.ended(serving.project, child.id, Attempt(worker_id=held.worker_id))
    again = await submit(serving, "child", parent_id=run.id, step_key="invoke", wait=True)
    assert again.id == child.id


async def test_a_batch_whose_members_have_ended_before_it_is_waited_for_lets_its_parent_go_on(
    serving: RunServer,
) -> None:
    run = await submit(serving)
    held = await in_state(serving, run, RunState.RUNNING)
    member = await submit(serving, "child", parent_id=run.id, step_key="all", batch=True)
    await in_state(serving, member, RunState.RUNNING)
    done = RunResult(result=b"1")
    await serving.runs.attempts.complete(serving.project, member.id, Attempt(worker_id=held.worker_id), done)
    await submit(serving, "child", parent_id=run.id, step_key="all", batch=True, wait=True)
    assert await wait_until_async(lambda: _step(serving, run), SECONDS, "the batch has ended")


async def test_a_run_is_not_cancelled_while_it_may_still_be_on_its_way_to_its_worker(
    serving: RunServer, pushes: HeldPushes
) -> None:
    """The worker does not know a run that it has not yet read: that is no proof that it will not run it."""
    pushes.through.clear()
    run = await submit(serving)
    await wait_until_async(lambda: true(pushes.given), SECONDS, "it is on its way")
    await serving.runs.runs.cancel(serving.project, run.id)
    other = await submit(serving)  # by its commit, what was to follow the cancel has followed
    await in_state(serving, other, RunState.CLAIMED)
    assert (await serving.runs.runs.find(serving.project, run.id)).state is RunState.PENDING_CANCEL
    pushes.through.set()
    await wait_until_async(lambda: true(run.id in pushes.asked_to_cancel), SECONDS, "the worker is told")
    held = await in_state(serving, run, RunState.PENDING_CANCEL)
    await serving.runs.attempts.ended(serving.project, run.id, Attempt(worker_id=held.worker_id))
    await in_state(serving, run, RunState.CANCELLED)


async def test_pushes_that_fail_together_are_one_failure(serving: RunServer, pushes: HeldPushes) -> None:
    pushes.rejected = 3
    pushes.through.clear()
    runs = [await submit(serving) for _ in range(3)]
    for run in runs:
        await in_state(serving, run, RunState.RUNNING)


async def test_pushes_that_fail_one_after_the_other_are_failures_in_a_row(
    serving: RunServer, pushes: HeldPushes
) -> None:
    pushes.rejected = 1_000
    run = await submit(serving)
    [live] = serving.runs.workers.all(serving.project)
    pushes.through.set()
    await wait_until_async(lambda: true(live.failures == MOST_FAILURES), SECONDS, "it is given nothing more")
    await in_state(serving, run, RunState.QUEUED)
    assert len(pushes.given) == MOST_FAILURES


@pytest.mark.parametrize("jump", [3_600, -3_600])
async def test_a_worker_has_two_minutes_to_end_a_run_whatever_the_host_s_clock_is_set_to(
    serving: RunServer, clock: MovedClock, pushes: HeldPushes, jump: float
) -> None:
    run = await in_state(serving, await submit(serving), RunState.RUNNING)
    await serving.runs.runs.cancel(serving.project, run.id)
    await wait_until_async(lambda: true(pushes.asked_to_cancel), SECONDS, "the worker is told")
    clock.set_by(jump)
    clock.forward(60)
    assert serving.runs.workers.heartbeat(serving.project, run.worker_id or "")  # it lives, and says nothing of the run
    serving.runs.wake()
    await wait_until_async(lambda: true(len(pushes.asked_to_cancel) > 1), SECONDS, "the worker is told again")
    assert (await serving.runs.runs.find(serving.project, run.id)).state is RunState.PENDING_CANCEL
    clock.forward(61)
    serving.runs.wake()
    await in_state(serving, run, RunState.CANCELLED)


@pytest.mark.parametrize("jump", [3_600, -3_600])
async def test_a_wait_is_given_what_came_since_its_attempt_began_whatever_the_host_s_clock_was_set_to(
    serving: RunServer, clock: MovedClock, jump: float
) -> None:
    clock.set_by(jump)
    clock.forward(10)
    publish = serving.runs.events.publish
    await publish(serving.project, "t", [EventOrder(event_type="early", data=b"1")])
    clock.forward(10)
    run = await submit(serving)
    await in_state(serving, run, RunState.RUNNING)
    await publish(serving.project, "t", [EventOrder(event_type="just now", data=b"2")])
    wait = NewWait(step_key="e", kind=WaitKind.EVENT, topic="t")
    await serving.runs.attempts.wait(serving.project, run.id, Attempt(), wait)
    step = await _step(serving, run)
    assert step is not None
    assert json.loads(step.outputs)["event_type"] == "just now"


@pytest.mark.parametrize("end", ["event", "cancel", "time"])
async def test_nothing_is_remembered_of_a_wait_that_has_ended(
    serving: RunServer, clock: MovedClock, pushes: HeldPushes, end: str
) -> None:
    run = await submit(serving)
    await in_state(serving, run, RunState.RUNNING)
    for key, topic, days in (("ear", "news", 1), ("deaf", "silence", 2)):
        due = serving.clock.now() + days * 86_400_000_000
        wait = NewWait(step_key=key, kind=WaitKind.EVENT, topic=topic, due_at=due)
        await serving.runs.attempts.wait(serving.project, run.id, Attempt(), wait)
    assert _remembered(serving) == {"ear", "deaf"}
    if end == "event":
        await serving.runs.events.publish(serving.project, "news", [EventOrder(event_type=None, data=b"1")])
    elif end == "cancel":
        await serving.runs.runs.cancel(serving.project, run.id)
    else:
        clock.forward(86_401)
        serving.runs.wake()
        assert await wait_until_async(lambda: _step(serving, run), SECONDS, "the wait has ended")
    wanted = set() if end == "cancel" else {"deaf"}
    await wait_until_async(lambda: true(_remembered(serving) == wanted), SECONDS, f"only {wanted} is remembered")


def _remembered(server: RunServer) -> set[str]:
    agenda, timed = server.runs._agenda._entries, server.runs._ledger._timed
    keys = {key[2] for key in agenda if isinstance(key, tuple) and key[0] == "wait"}
    assert keys == {key for some in timed.values() for key in some}
    return keys


async def true(value: object) -> bool:
    return bool(value)
