"""Executions that their machine does not end although it should: the machine is ended, but none that may still say so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from dormice.domain.execution import ErrorCode, ExecutionState
from dormice.domain.limits import Limits
from dormice.domain.machine import Machine
from dormice.protocol import node as wire
from tests.engine.faulty_store import Faults
from tests.engine.scripted_node import MovedClock, ScriptedNode, Server, ended, serving
from tests.wait import wait_until_async

STEP_SECONDS = 9.0
"""Between two looks; one that comes later is of an engine that was stopped itself."""
TIMEOUT_SECONDS = 20
LOST_SECONDS = Limits().machine_lost_ms / 1000
GRACE_SECONDS = Limits().cancel_grace_ms / 1000


@dataclass(frozen=True)
class Running:
    """A command on a machine that says nothing more of it."""

    server: Server
    clock: MovedClock
    node: ScriptedNode
    machine: Machine
    up: wire.StartMachine
    start: wire.StartExecution
    execution_id: str

    async def passes(self, seconds: float) -> None:
        """Let time go by as it does for an engine that works."""
        for step in (*[STEP_SECONDS] * int(seconds // STEP_SECONDS), seconds % STEP_SECONDS):
            self.clock.forward(step)
            await self.server.engine._reaper.reap()

    async def ends(self) -> None:
        """The node is told to end the machine, and does."""
        assert (await self.node.hear(wire.StopMachine)).grace_ms == 0
        self.node.say(wire.MachineEnded(self.machine.id, self.up.boot_id, clean=False, reason="killed"))

    async def goes_on(self) -> None:
        await self.node.hears_nothing_of(wire.StopMachine)


async def _running(server: Server, clock: MovedClock, timeout_ms: int | None = TIMEOUT_SECONDS * 1000) -> Running:
    node = await server.node()
    machine, up = await server.machine(node)
    execution_id = await server.execute(machine, "sleep", timeout_ms=timeout_ms)
    start = await node.hear(wire.StartExecution)
    node.say(wire.ExecutionStarted(machine.id, start.execution, 1))
    await server.engine._reaper.reap()
    return Running(server, clock, node, machine, up, start, execution_id)


@pytest.fixture(name="running")
async def _started(server: Server, clock: MovedClock) -> Running:
    return await _running(server, clock)


async def test_a_machine_that_does_not_keep_a_timeout_is_lost(running: Running) -> None:
    server, machine = running.server, running.machine
    neighbour = await server.execute(machine, "sleep")
    await running.passes(TIMEOUT_SECONDS + LOST_SECONDS - 1)
    await running.goes_on()
    await running.passes(10)
    await running.ends()
    for execution_id in (running.execution_id, neighbour):
        done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
        assert (done.state, done.error_code) == (ExecutionState.FAILED, ErrorCode.MACHINE_LOST)
        assert running.execution_id in (done.error_message or "")


async def test_a_cancel_that_a_machine_does_not_carry_out_ends_with_it(server: Server, clock: MovedClock) -> None:
    running = await _running(server, clock, timeout_ms=None)
    await running.passes(1_000)
    await running.goes_on()
    await server.engine.executions.cancel(server.caller, running.machine.id, running.execution_id)
    await running.passes(GRACE_SECONDS)
    await running.passes(LOST_SECONDS - 10)
    await running.goes_on()
    await running.passes(20)
    await running.ends()
    done = await server.engine.executions.get(server.caller, running.machine.id, running.execution_id, wait_ms=5_000)
    assert (done.state, done.error_code) == (ExecutionState.CANCELLED, ErrorCode.CANCELLED)


async def test_a_machine_is_not_lost_for_what_the_engine_has_not_listened_to(running: Running) -> None:
    running.clock.forward(1_000)
    await running.server.engine._reaper.reap()
    await running.passes(LOST_SECONDS - 10)
    await running.goes_on()
    running.clock.forward(1_000)
    await running.server.engine._reaper.reap()
    await running.goes_on()
    running.node.say(ended(running.start, how=2, timed_out=True))
    done = await running.server.engine.executions.get(
        running.server.caller, running.machine.id, running.execution_id, wait_ms=5_000
    )
    assert done.error_code is ErrorCode.TIMEOUT


async def test_the_time_without_a_node_does_not_count(running: Running) -> None:
    server = running.server
    await running.passes(TIMEOUT_SECONDS + LOST_SECONDS - 20)
    await running.node.hang_up()
    await server.without_node()
    await running.passes(LOST_SECONDS - 10)
    node = await server.node(running.up)
    node.attach(running.up, running.start.execution)
    live = server.engine._board.get(running.machine.id)
    assert live is not None

    async def attached() -> bool:
        return live.attached

    await wait_until_async(attached, 10, "the guest answers")
    await running.passes(LOST_SECONDS - 10)
    await node.hears_nothing_of(wire.StopMachine)


async def test_a_machine_is_not_lost_for_an_end_that_the_store_does_not_take(tmp_path: Path, clock: MovedClock) -> None:
    faults = Faults()
    async with serving(tmp_path, clock, wrap=faults.wrap) as server:
        running = await _running(server, clock)
        async with faults.held("progress") as reached:
            running.node.say(ended(running.start, how=2, timed_out=True))
            await reached.wait()
            await running.passes(TIMEOUT_SECONDS + 2 * LOST_SECONDS)
            await running.goes_on()
        done = await server.engine.executions.get(
            server.caller, running.machine.id, running.execution_id, wait_ms=5_000
        )
        assert done.error_code is ErrorCode.TIMEOUT
