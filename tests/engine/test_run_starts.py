"""What a start of the server finds of runs, and what happens in the midst of it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, cast

from dormice.domain.execution import Execution, ExecutionState
from dormice.domain.run import CancelledBy, RunState
from dormice.engine.orders import ExecutionOrder, MachineOrder
from dormice.store.workflows import Attempt, WholeStore
from tests.engine.run_serving import serving_runs
from tests.engine.scripted_node import MovedClock
from tests.engine.test_run_races import HeldPushes, in_state, submit, with_worker

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
        await attempts.begin_command(project, run.id, Attempt(), "make", machine.id, order)
        [command] = await server.runs.runs.commands(run)
        await server.store.runs.request_cancel(project.id, run.id, CancelledBy.MANUAL, now=clock.now())

    def late(store: WholeStore) -> WholeStore:
        return cast("WholeStore", _LateReads(store, asyncio.Event(), asyncio.Event()))

    async with serving_runs(tmp_path, clock, HeldPushes(), wrap=late) as server:
        await in_state(server, run, RunState.CANCELLED)
        found = await server.engine.executions.get(server.caller, machine.id, command.execution.id)
        assert found.state is ExecutionState.CANCELLED
