"""What a start of the server finds of runs, and what happens in the midst of it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, cast

import pytest

from dormice.domain.errors import Conflict
from dormice.domain.execution import Execution, ExecutionState
from dormice.domain.run import CancelledBy, Run, RunState
from dormice.engine.orders import ExecutionOrder, MachineOrder
from dormice.engine.runs.dispatcher import REPEATS_US
from dormice.engine.runs.policy import RunPolicy
from dormice.store.workflows import Attempt, RunResult, WholeStore
from tests.engine.run_serving import RunServer, serving_runs
from tests.engine.scripted_node import MovedClock
from tests.engine.test_run_races import SECONDS, HeldPushes, in_state, submit, true, with_worker
from tests.wait import wait_until_async

READ_SECONDS = 0.5


class _LateReads:
    """A store that has the end of an execution asked for between the look at those that are open and its answer, if that is possible."""

    def __init__(self, store: Any, looked: asyncio.Event, asked: asyncio.Event) -> None:
        self._store = store
        self._looked = looked
        self._asked = asked

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return _LateReads(found, self._looked, self._asked) if name == "executions" else found

    async def open(self) -> list[Execution]:
        found: list[Execution] = await self._store.open()
        self._looked.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READ_SECONDS):
                await self._asked.wait()
        return found

    async def request_cancel(self, execution_id: str, now: int) -> Execution | None:
        await self._looked.wait()
        asked: Execution | None = await self._store.request_cancel(execution_id, now)
        self._asked.set()
        return asked


async def test_the_end_of_a_command_that_a_start_asks_for_is_not_forgotten(tmp_path: Path, clock: MovedClock) -> None:
    """A kill came between the cancel of a run and that of its command: the next start cancels the command."""
    async with serving_runs(tmp_path, clock, HeldPushes()) as server:
        await with_worker(server)
        machine = await server.engine.machines.create(server.caller, MachineOrder(), None)
        run = await submit(server)
        await in_state(server, run, RunState.RUNNING)
        order = ExecutionOrder(command=("true",), cwd="/root")
        attempts, project = server.runs.attempts, server.project
        await attempts.begin_command(server.caller, project, run.id, Attempt(), "make", machine.id, order)
        [command] = await server.runs.runs.commands(run)
        await server.store.runs.request_cancel(project.id, run.id, CancelledBy.MANUAL, now=clock.now())

    def late(store: WholeStore) -> WholeStore:
        return cast("WholeStore", _LateReads(store, asyncio.Event(), asyncio.Event()))

    async with serving_runs(tmp_path, clock, HeldPushes(), wrap=late) as server:
        await in_state(server, run, RunState.CANCELLED)
        found = await server.engine.executions.get(server.caller, machine.id, command.execution.id)
        assert found.state is ExecutionState.CANCELLED


async def _left_with_a_push_under_way(directory: Path, clock: MovedClock) -> Run:
    """Kill a server whose push of a run has reached a worker and was not answered."""
    pushes = HeldPushes()
    pushes.through.clear()
    async with serving_runs(directory, clock, pushes) as server:
        await with_worker(server)
        run = await submit(server)
        return await in_state(server, run, RunState.CLAIMED)


async def test_a_run_whose_worker_died_with_the_server_is_taken_over_once_the_worker_has_missed_its_heartbeats(
    tmp_path: Path, clock: MovedClock
) -> None:
    run = await _left_with_a_push_under_way(tmp_path, clock)
    pushes = HeldPushes()
    pushes.dead = True
    async with serving_runs(tmp_path, clock, pushes) as server:
        clock.forward(RunPolicy().worker_silent_ms / 1000)
        server.runs.wake()
        await in_state(server, run, RunState.QUEUED)
        await wait_until_async(lambda: true(not server.runs.workers.all(server.project)), SECONDS, "it is forgotten")
        late = Attempt(worker_id=run.worker_id)
        with pytest.raises(Conflict):
            await server.runs.attempts.complete(server.project, run.id, late, RunResult(result=b"1"))


async def test_a_silent_worker_that_may_be_alive_has_more_time(tmp_path: Path, clock: MovedClock) -> None:
    run = await _left_with_a_push_under_way(tmp_path, clock)
    pushes, policy = HeldPushes(), RunPolicy()
    pushes.taken.add(run.id)
    async with serving_runs(tmp_path, clock, pushes) as server:
        clock.forward(policy.worker_silent_ms / 1000)
        server.runs.wake()
        await wait_until_async(lambda: true(pushes.searched_for), SECONDS, "it is searched for")
        [live] = server.runs.workers.all(server.project)
        assert not live.online
        clock.forward((policy.worker_lost_ms - policy.worker_silent_ms) / 1000)
        server.runs.wake()
        await in_state(server, run, RunState.QUEUED)


class _ComesBack(HeldPushes):
    """A worker whose heartbeat comes while it is searched for."""

    server: RunServer

    async def listens(self, url: str, worker_id: str) -> bool:
        self.server.runs.workers.heartbeat(self.server.project, worker_id)
        return await super().listens(url, worker_id)


async def test_a_worker_that_is_heard_of_while_it_is_searched_for_is_not_lost(
    tmp_path: Path, clock: MovedClock
) -> None:
    pushes = _ComesBack()
    async with serving_runs(tmp_path, clock, pushes) as server:
        pushes.server = server
        await with_worker(server)
        run = await submit(server)
        await in_state(server, run, RunState.RUNNING)
        pushes.dead = True
        clock.forward(RunPolicy().worker_silent_ms / 1000)
        server.runs.wake()
        await wait_until_async(lambda: true(pushes.searched_for), SECONDS, "it is searched for")
        await in_state(server, await submit(server), RunState.RUNNING)
        assert (await server.runs.runs.find(server.project, run.id)).crashes == 0


async def test_a_failure_that_is_told_again_after_a_restart_does_not_count_for_the_next_attempt(
    tmp_path: Path, clock: MovedClock
) -> None:
    """The answer to it was cut off, and the foreign SDK tells it up to four times more."""
    async with serving_runs(tmp_path, clock, HeldPushes()) as server:
        worker = Attempt(worker_id=(await with_worker(server)).id)
        run = await submit(server)
        await in_state(server, run, RunState.RUNNING)
        await server.runs.attempts.fail(server.project, run.id, worker, "boom", retryable=True)
    clock.forward(2)
    async with serving_runs(tmp_path, clock, HeldPushes()) as server:
        await in_state(server, await submit(server), RunState.RUNNING)  # whatever could be given was given
        with pytest.raises(Conflict):
            await server.runs.attempts.fail(server.project, run.id, worker, "boom", retryable=True)
        assert (await server.runs.runs.find(server.project, run.id)).retry_count == 1
        clock.forward(REPEATS_US / 1_000_000)
        server.runs.wake()
        await in_state(server, run, RunState.RUNNING)
