"""Somebody sets the host's clock: records stay in order, and no deadline passes or moves because of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from dormice.domain.execution import Execution, ExecutionState
from dormice.domain.limits import Limits
from dormice.domain.machine import Phase
from dormice.engine.clock import SystemClock
from dormice.engine.orders import ExecutionOrder, Idempotency, MachineOrder
from dormice.engine.retention import Retention
from dormice.protocol import node as wire
from tests.engine.scripted_node import MovedClock, ScriptedNode, Server, ended, serving

HOUR = 3600.0
JUMPS = [HOUR, -HOUR, 48 * HOUR, -48 * HOUR]
TRUE = ExecutionOrder(command=("true",), cwd="/root")
jumps = pytest.mark.parametrize("jump", JUMPS)


@pytest.fixture(name="clock")
def _clock() -> MovedClock:
    return MovedClock()


@pytest.fixture(name="server")
async def _server(tmp_path: Path, clock: MovedClock) -> AsyncIterator[Server]:
    async with serving(tmp_path, clock, Limits(machine_lost_ms=600_000)) as running:
        yield running


async def _look(server: Server) -> None:
    """Have everything that is due done."""
    await server.engine._reaper.reap()


async def _done(server: Server, node: ScriptedNode, machine_id: str, execution_id: str) -> Execution:
    node.exited(await node.hear(wire.StartExecution))
    return await server.engine.executions.get(server.caller, machine_id, execution_id, wait_ms=5_000)


@jumps
async def test_no_machine_falls_asleep_and_it_does_when_its_time_has_really_passed(
    server: Server, clock: MovedClock, jump: float
) -> None:
    node = await server.node()
    machine, _ = await server.machine(node, autosleep_seconds=60)
    clock.set_by(jump)
    await _look(server)
    assert (await server.engine.machines.get(server.caller, machine.id)).phase is Phase.RUNNING
    clock.forward(61)
    await _look(server)
    await node.hear(wire.StopMachine)


@jumps
async def test_what_waits_is_not_expired_and_it_is_when_its_time_has_really_passed(
    server: Server, clock: MovedClock, jump: float
) -> None:
    machine = await server.engine.machines.create(server.caller, MachineOrder(), None)  # waits for a node
    before = await server.execute(machine, start_timeout_ms=60_000)
    clock.set_by(jump)
    after = await server.execute(machine, start_timeout_ms=60_000)
    await _look(server)
    found = [await server.engine.executions.get(server.caller, machine.id, name) for name in (before, after)]
    assert {one.state for one in found} == {ExecutionState.WAKE_IN_PROGRESS}
    assert found[0].created_at <= found[1].created_at
    clock.forward(61)
    await _look(server)
    found = [await server.engine.executions.get(server.caller, machine.id, name) for name in (before, after)]
    assert {one.state for one in found} == {ExecutionState.EXPIRED}
    assert all(one.created_at <= (one.completed_at or 0) for one in found)


@jumps
async def test_a_node_that_is_away_for_a_moment_loses_nothing(server: Server, clock: MovedClock, jump: float) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    execution_id = await server.execute(machine)
    start = await node.hear(wire.StartExecution)
    await node.hang_up()
    await server.without_node()
    clock.set_by(jump)
    await _look(server)
    node = await server.node(up)
    node.attach(up, start.execution)
    node.exited(start)
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    assert done.state is ExecutionState.SUCCEEDED


@jumps
async def test_a_key_is_remembered_for_its_day(server: Server, clock: MovedClock, jump: float) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    key = Idempotency(key="k", scope="POST", request=b"true")
    first = await server.engine.executions.create(server.caller, machine.id, TRUE, key)
    clock.set_by(jump)
    clock.forward(61)  # old keys are forgotten once a minute
    await _look(server)
    again = await server.engine.executions.create(server.caller, machine.id, TRUE, key)
    assert again.id == first.id
    clock.forward(25 * HOUR)
    await _look(server)
    assert (await server.engine.executions.create(server.caller, machine.id, TRUE, key)).id != first.id


@pytest.mark.parametrize("jump", [1_000 * HOUR, -1_000 * HOUR])
async def test_what_has_ended_is_kept_for_its_time(server: Server, clock: MovedClock, jump: float) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    before = await _done(server, node, machine.id, await server.execute(machine))
    clock.set_by(jump)
    after = await _done(server, node, machine.id, await server.execute(machine))
    retention = Retention(
        store=server.engine._store,
        clock=clock,
        limits=Limits(keep_finished_hours=48),
        forgotten=server.engine.ssh_sessions.hang_up_on_forgotten,
    )
    clock.forward(47 * HOUR)
    assert await retention.delete() == 0
    for kept in (before, after):
        assert (await server.engine.executions.get(server.caller, machine.id, kept.id)).terminal
    clock.forward(5_000 * HOUR)
    assert await retention.delete() > 0


@jumps
async def test_a_wait_takes_its_time(server: Server, clock: MovedClock, jump: float) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    execution_id = await server.execute(machine)
    clock.set_by(jump)
    waited = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=50)
    assert not waited.terminal
    assert (await _done(server, node, machine.id, execution_id)).terminal


@jumps
async def test_the_steps_of_an_execution_stay_in_order(server: Server, clock: MovedClock, jump: float) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    execution_id = await server.execute(machine)
    start = await node.hear(wire.StartExecution)
    name = machine.id, start.execution
    node.say(wire.ExecutionStarted(*name, clock.host()), wire.Output(*name, 1, 0, b"before"))
    await server.engine.executions.entries(
        server.caller, machine.id, execution_id, after=2, limit=9, max_bytes=99, wait_ms=5_000
    )
    clock.set_by(jump)
    node.say(wire.Output(*name, 1, 6, b"after"))
    node.say(msgspec.structs.replace(ended(start, total=11), ended_at=clock.host()))
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    _, log = await server.engine.executions.entries(
        server.caller, machine.id, execution_id, after=0, limit=99, max_bytes=999
    )
    assert done.created_at <= (done.started_at or 0) <= (done.completed_at or 0)
    steps = [entry.at for entry in log if entry.state is not None]
    assert steps == [done.created_at, done.started_at, done.completed_at]
    output = [entry.at for entry in log if entry.stream is not None]
    assert done.started_at is not None
    assert sorted(output) == output
    assert output[0] >= done.started_at


@pytest.mark.parametrize("jump", [jump for jump in JUMPS if jump < 0])
async def test_a_clock_that_went_back_over_a_restart_ends_nothing_before_it_began(
    tmp_path: Path, clock: MovedClock, jump: float
) -> None:
    async with serving(tmp_path, clock) as first:
        node = await first.node()
        machine, _ = await first.machine(node)
        lost = await first.execute(machine)
        start = await node.hear(wire.StartExecution)
        node.say(wire.ExecutionStarted(machine.id, start.execution, clock.host()))
        await first.engine.executions.entries(
            first.caller, machine.id, lost, after=1, limit=9, max_bytes=99, wait_ms=5_000
        )
    later = MovedClock()
    later.set_by(jump)
    async with serving(tmp_path, later) as second:
        node = await second.node()  # on which nothing lives any more
        done = await second.engine.executions.get(second.caller, machine.id, lost, wait_ms=5_000)
        assert done.state is ExecutionState.FAILED
        assert done.created_at <= (done.started_at or 0) <= (done.completed_at or 0)


def test_records_never_go_back_and_meet_the_hosts_clock_again() -> None:
    wall = monotonic = 1_000_000_000_000_000
    clock = SystemClock(lambda: wall, lambda: monotonic)
    told = []
    for put, passes in ((0, 5), (7200, 5), (-3600, 5), (0, 3600), (0, 3600), (0, 1)):
        wall += (put + passes) * 1_000_000_000
        monotonic += passes * 1_000_000_000
        told.append((clock.now() - 1_000_000_000_000) // 1_000_000)
    assert told == [5, 7210, 7212, 9012, 10815, 10816]
    assert clock.steady() == monotonic // 1000
