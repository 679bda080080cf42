"""What must hold when things happen at the same time, half-way, or while the store cannot commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from dormice.domain.errors import Conflict
from dormice.domain.execution import ErrorCode, ExecutionState, StdinMode
from dormice.domain.limits import Limits
from dormice.domain.machine import Machine, Phase
from dormice.engine.orders import ExecutionOrder, Idempotency, MachineOrder
from dormice.protocol import node as wire
from dormice.store.interface import StoreUnavailable
from tests.engine.faulty_store import Faults
from tests.engine.scripted_node import MovedClock, ScriptedNode, Server, asleep, ended, phase, serving, wire_id
from tests.wait import others_run, wait_until_async

TRUE = ExecutionOrder(command=("true",), cwd="/root")


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
async def faulty(tmp_path: Path, clock: MovedClock, faults: Faults) -> AsyncIterator[Server]:
    async with serving(tmp_path, clock, Limits(running_per_machine=2), faults.wrap) as running:
        yield running


@pytest.fixture
async def narrow(tmp_path: Path, clock: MovedClock, faults: Faults) -> AsyncIterator[Server]:
    """Machines run one execution at a time."""
    async with serving(tmp_path, clock, Limits(running_per_machine=1), faults.wrap) as running:
        yield running


# Requests


async def a_snapshot(server: Server, node: ScriptedNode) -> str:
    machine, _ = await server.machine(node)
    asked = asyncio.ensure_future(server.engine.snapshots.create(server.caller, machine, "kept", None))
    node.say(wire.SnapshotTaken((await node.hear(wire.TakeSnapshot)).snapshot_id, 4096))
    return (await asked).id


async def test_a_snapshot_that_is_being_deleted_becomes_no_machine(faulty: Server, faults: Faults) -> None:
    snapshot_id = await a_snapshot(faulty, await faulty.node())
    async with faults.held("advance") as begun:
        deletion = asyncio.ensure_future(faulty.engine.snapshots.delete(faulty.caller, snapshot_id))
        await begun.wait()
        with pytest.raises(Conflict, match="deleting"):
            await faulty.engine.machines.create(faulty.caller, MachineOrder(snapshot=snapshot_id), None)
    await deletion


async def test_a_snapshot_that_is_becoming_a_machine_is_not_deleted(faulty: Server, faults: Faults) -> None:
    snapshot_id = await a_snapshot(faulty, await faulty.node())
    async with faults.held("create") as begun:
        order = MachineOrder(snapshot=snapshot_id)
        creation = asyncio.ensure_future(faulty.engine.machines.create(faulty.caller, order, None))
        await begun.wait()
        with pytest.raises(Conflict, match="being made") as refused:
            await faulty.engine.snapshots.delete(faulty.caller, snapshot_id)
        assert refused.value.retryable
        creation.cancel()


async def test_a_key_that_came_with_a_refused_request_can_be_used_again(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    await asleep(server, node, machine, up)
    await server.execute(machine)
    start = await node.hear(wire.StartMachine)
    node.say(wire.MachineFailed(machine.id, start.boot_id, "STORAGE_EXHAUSTED", "full", retryable=True))
    await phase(server, machine.id, Phase.FAILED)
    key = Idempotency("POST /executions", "one", b"request")
    with pytest.raises(Conflict):
        await server.engine.executions.create(server.caller, machine.id, TRUE, key)
    await server.engine.machines.wake(server.caller, machine.id, revision=None, idempotency=None)
    await node.start_machine()
    made = await server.engine.executions.create(server.caller, machine.id, TRUE, key)
    assert made.state in (ExecutionState.WAKE_IN_PROGRESS, ExecutionState.QUEUED)


async def test_input_for_a_queued_execution_does_not_cost_it_its_turn(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock, Limits(running_per_machine=1)) as server:
        node = await server.node()
        machine, _ = await server.machine(node)
        await server.execute(machine)
        second = await server.execute(machine, "cat", stdin_mode=StdinMode.OPEN)
        await server.execute(machine)
        await server.engine.executions.write_stdin(server.caller, machine.id, second, offset=0, data=b"x", eof=False)
        node.exited(await node.hear(wire.StartExecution))
        assert (await node.hear(wire.StartExecution)).execution == wire_id(second)


async def test_a_request_that_is_cancelled_has_its_execution_started_all_the_same(
    faulty: Server, faults: Faults
) -> None:
    node = await faulty.node()
    machine, _ = await faulty.machine(node)
    async with faults.late("create") as committed:
        request = asyncio.ensure_future(faulty.engine.executions.create(faulty.caller, machine.id, TRUE, None))
        await committed.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    node.exited(await node.hear(wire.StartExecution))
    assert (await node.hear(wire.Forget)).machine_id == machine.id


async def test_a_claim_that_comes_after_its_boot_has_ended_is_told_of_a_start_that_fails(
    narrow: Server, faults: Faults
) -> None:
    node = await narrow.node()
    machine, up = await narrow.machine(node)
    async with second_being_claimed(narrow, node, machine, faults) as second:
        node.say(wire.MachineEnded(machine.id, up.boot_id, clean=False, reason="killed"))
        again = await node.hear(wire.StartMachine)
    await wait_until_async(lambda: _claimed(narrow, machine.id, second), 5, "it is claimed by the boot that has ended")
    node.say(wire.MachineFailed(machine.id, again.boot_id, "STORAGE_EXHAUSTED", "full", retryable=True))
    done = await narrow.engine.executions.get(narrow.caller, machine.id, second, wait_ms=5_000)
    assert (done.state, done.error_code) == (ExecutionState.FAILED, ErrorCode.WAKE_FAILED)


async def test_what_is_heard_late_of_an_execution_that_has_ended_is_old(
    narrow: Server, clock: MovedClock, faults: Faults
) -> None:
    node = await narrow.node()
    machine, up = await narrow.machine(node)
    await asleep(narrow, node, machine, up)
    await narrow.execute(machine)
    second = await narrow.execute(machine, start_timeout_ms=1_000)
    async with faults.late("machine_ready") as committed:
        await node.start_machine()
        await committed.wait()
        clock.forward(2)
        await narrow.engine._reaper.reap()
    assert (await node.hear(wire.StartExecution)).execution != wire_id(second)
    now = await narrow.engine.executions.get(narrow.caller, machine.id, second)
    assert now.state is ExecutionState.EXPIRED


async def test_an_execution_that_is_cancelled_while_its_claim_fails_stays_cancelled(
    narrow: Server, faults: Faults
) -> None:
    node = await narrow.node()
    machine, _ = await narrow.machine(node)
    async with second_being_claimed(narrow, node, machine, faults) as second:
        asked = await narrow.engine.executions.cancel(narrow.caller, machine.id, second)
        assert asked.state is ExecutionState.CANCELLED
        faults.fail("claim", 1_000)  # and as often as it is tried again
    for _ in range(20):
        await others_run()
    now = await narrow.engine.executions.get(narrow.caller, machine.id, second)
    assert now.state is ExecutionState.CANCELLED


async def test_an_execution_that_is_cancelled_while_it_is_put_back_into_its_queue_stays_cancelled(
    narrow: Server, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    node = await narrow.node()
    machine, up = await narrow.machine(node)
    async with second_being_claimed(narrow, node, machine, faults) as second:
        node.say(wire.MachineEnded(machine.id, up.boot_id, clean=False, reason="killed"))
        await phase(narrow, machine.id, Phase.STARTING)
    await wait_until_async(lambda: _claimed(narrow, machine.id, second), 5, "it is claimed by the boot that has ended")
    async with faults.late("progress") as put_back:
        await node.start_machine()
        await put_back.wait()
        asked = await narrow.engine.executions.cancel(narrow.caller, machine.id, second)
        assert asked.state is ExecutionState.CANCELLED
    third = await narrow.execute(machine)
    assert (await node.hear(wire.StartExecution)).execution == wire_id(third)
    now = await narrow.engine.executions.get(narrow.caller, machine.id, second)
    assert now.state is ExecutionState.CANCELLED
    assert "a turn failed" not in caplog.text


@asynccontextmanager
async def second_being_claimed(
    server: Server, node: ScriptedNode, machine: Machine, faults: Faults
) -> AsyncIterator[str]:
    """Its claim, in the place of the first one that has ended, is committed when the block ends."""
    await server.execute(machine)
    second = await server.execute(machine)
    async with faults.held("claim") as claiming:
        node.exited(await node.hear(wire.StartExecution))
        await claiming.wait()
        yield second


async def _claimed(server: Server, machine_id: str, execution_id: str) -> bool:
    return (await server.engine.executions.get(server.caller, machine_id, execution_id)).boot_id is not None


# An unavailable store


async def test_claims_that_fail_keep_their_order(faulty: Server, faults: Faults) -> None:
    node = await faulty.node()
    machine, _ = await faulty.machine(node)
    running = []
    for number in range(6):
        await faulty.execute(machine, "echo", str(number))
    running = [await node.hear(wire.StartExecution) for _ in range(2)]
    faults.fail("claim", 4)
    for start in running:
        node.exited(start)
    order = []
    for _ in range(4):
        start = await node.hear(wire.StartExecution)
        order.append(start.argv[1])
        node.exited(start)
    assert order == ["2", "3", "4", "5"]


async def test_a_claimed_execution_whose_environment_cannot_be_read_starts_later(
    faulty: Server, faults: Faults
) -> None:
    node = await faulty.node()
    machine, _ = await faulty.machine(node)
    for _ in range(2):
        await faulty.execute(machine)
    third = await faulty.execute(machine, "env", env={"NAME": "value"})
    starts = [await node.hear(wire.StartExecution) for _ in range(2)]
    faults.fail("environment")
    for start in starts:
        node.exited(start)
    again = await node.hear(wire.StartExecution)
    assert (again.execution, again.env) == (wire_id(third), {"NAME": "value"})


async def test_a_sleep_that_is_committed_reaches_the_node_whatever_fails_next(faulty: Server, faults: Faults) -> None:
    node = await faulty.node()
    machine, up = await faulty.machine(node)
    for _ in range(3):
        await faulty.execute(machine)
    faults.fail("end_unstarted")
    with pytest.raises(StoreUnavailable):
        await faulty.engine.machines.sleep(faulty.caller, machine.id, revision=None, idempotency=None)
    assert (await node.hear(wire.StopMachine)).machine_id == machine.id
    node.say(wire.MachineEnded(machine.id, up.boot_id, clean=True, reason=""))
    assert (await node.hear(wire.StartMachine)).boot_id != up.boot_id  # one execution still waits, and wakes it


async def test_those_who_wait_are_told_of_a_failed_start_though_the_store_failed_half_way(
    faulty: Server, faults: Faults
) -> None:
    node = await faulty.node()
    machine, up = await faulty.machine(node)
    await asleep(faulty, node, machine, up)
    execution_id = await faulty.execute(machine)
    start = await node.hear(wire.StartMachine)
    faults.fail("end_boot")
    node.say(wire.MachineFailed(machine.id, start.boot_id, "STORAGE_EXHAUSTED", "full", retryable=True))
    done = await faulty.engine.executions.get(faulty.caller, machine.id, execution_id, wait_ms=5_000)
    assert (done.state, done.error_code) == (ExecutionState.FAILED, ErrorCode.WAKE_FAILED)


async def test_a_wake_that_was_promised_while_falling_asleep_survives_a_failing_store(
    faulty: Server, faults: Faults
) -> None:
    node = await faulty.node()
    machine, up = await faulty.machine(node)
    await faulty.engine.machines.sleep(faulty.caller, machine.id, revision=None, idempotency=None)
    await faulty.engine.machines.wake(faulty.caller, machine.id, revision=None, idempotency=None)
    async with faults.late("end_boot") as ending:
        node.say(wire.MachineEnded(machine.id, up.boot_id, clean=True, reason=""))
        await ending.wait()
        count = faults.calls["advance"]
        faults.down_while(lambda: faults.calls["advance"] == count + 2)  # STOPPED is committed, START is not
    assert await phase(faulty, machine.id, Phase.SLEEPING) is Phase.SLEEPING
    faults.down_while(lambda: False)
    assert (await node.hear(wire.StartMachine)).boot_id != up.boot_id


async def test_a_wake_that_was_promised_while_falling_asleep_survives_a_killed_server(
    tmp_path: Path, clock: MovedClock
) -> None:
    faults = Faults()
    async with serving(tmp_path, clock, wrap=faults.wrap) as first:
        node = await first.node()
        machine, up = await first.machine(node)
        await first.engine.machines.sleep(first.caller, machine.id, revision=None, idempotency=None)
        await first.engine.machines.wake(first.caller, machine.id, revision=None, idempotency=None)
        count = faults.calls["advance"]
        faults.down_while(lambda: faults.calls["advance"] > count + 1)
        node.say(wire.MachineEnded(machine.id, up.boot_id, clean=True, reason=""))
        await phase(first, machine.id, Phase.SLEEPING)
        await node.hang_up()
        await first.without_node()
        faults.down_while(lambda: False)
    async with serving(tmp_path, clock) as second:
        node = await second.node()
        assert (await node.hear(wire.StartMachine)).boot_id != up.boot_id


# Reports that cross other news


async def test_news_of_an_older_boot_does_not_stop_the_present_one(server: Server, clock: MovedClock) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    await node.hang_up()
    await server.without_node()
    clock.forward(61)
    await phase(server, machine.id, Phase.SLEEPING)
    execution_id = await server.execute(machine)
    node = await server.node(up)
    node.attach(up)
    again = await node.hear(wire.StartMachine)
    assert again.boot_id != up.boot_id
    node.attach(up)
    node.say(wire.MachineEnded(machine.id, up.boot_id, clean=False, reason="replaced by a newer boot"))
    node.attach(again)
    assert (await node.hear(wire.StartExecution)).execution == wire_id(execution_id)
    await node.hears_nothing_of(wire.StopMachine)


async def test_an_execution_that_starts_right_after_an_attach_is_not_lost(faulty: Server, faults: Faults) -> None:
    node = await faulty.node()
    machine, up = await faulty.machine(node)
    execution_id = await faulty.execute(machine)
    start = await node.hear(wire.StartExecution)
    async with faults.late("machine_ready") as attaching:
        node.attach(up)  # the guest was attached anew, and got the start frame only then
        await attaching.wait()
        node.say(
            wire.ExecutionStarted(machine.id, start.execution, 1), wire.Output(machine.id, start.execution, 1, 0, b"a")
        )
        await node.hear(wire.AckOutput)
    node.say(ended(start, total=1))
    done = await faulty.engine.executions.get(faulty.caller, machine.id, execution_id, wait_ms=5_000)
    assert (done.state, done.error_code) == (ExecutionState.SUCCEEDED, None)


async def test_an_execution_that_ended_with_its_machine_stays_ended(faulty: Server, faults: Faults) -> None:
    node = await faulty.node()
    machine, up = await faulty.machine(node)
    execution_id = await faulty.execute(machine)
    start = await node.hear(wire.StartExecution)
    async with faults.late("progress") as committed:
        node.say(
            wire.ExecutionStarted(machine.id, start.execution, 1), wire.Output(machine.id, start.execution, 1, 0, b"a")
        )
        await committed.wait()
        await node.hang_up()
        node = await faulty.node()
        await phase(faulty, machine.id, Phase.SLEEPING)
    second = await faulty.execute(machine)
    await node.start_machine()
    node.exited(await node.hear(wire.StartExecution))
    done = await faulty.engine.executions.get(faulty.caller, machine.id, second, wait_ms=5_000)
    assert done.state is ExecutionState.SUCCEEDED
    lost = await faulty.engine.executions.get(faulty.caller, machine.id, execution_id)
    assert (lost.state, lost.error_code) == (ExecutionState.FAILED, ErrorCode.MACHINE_LOST)
    assert up.boot_id != start.execution


async def test_a_machine_that_ends_as_its_connection_does_is_not_locked_for_ever(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    await server.execute(machine)
    start = await node.hear(wire.StartExecution)
    node.say(
        wire.ExecutionStarted(machine.id, start.execution, 1),
        wire.MachineEnded(machine.id, up.boot_id, clean=False, reason="died"),
    )
    await node.hang_up()
    async with asyncio.timeout(5):
        await server.engine.machines.destroy(server.caller, machine.id, revision=None, idempotency=None)


async def test_a_claim_under_way_holds_its_machine_awake(faulty: Server, faults: Faults, clock: MovedClock) -> None:
    node = await faulty.node()
    machine, _ = await faulty.machine(node, autosleep_seconds=1)
    for _ in range(3):
        await faulty.execute(machine)
    starts = [await node.hear(wire.StartExecution) for _ in range(2)]
    async with faults.late("claim") as claiming:
        for start in starts:
            node.exited(start)
        await claiming.wait()
        for _ in starts:
            await node.hear(wire.Forget)
        clock.forward(3600)
        await faulty.engine._reaper.reap()
    await node.hear(wire.StartExecution)
    await node.hears_nothing_of(wire.StopMachine)


# Guests that lie


async def test_a_lie_of_one_guest_costs_no_other_machine_its_reports(server: Server) -> None:
    node = await server.node()
    honest, _ = await server.machine(node)
    liar, _ = await server.machine(node)
    ids = [await server.execute(liar), await server.execute(honest)]
    lie, truth = [await node.hear(wire.StartExecution) for _ in range(2)]
    node.say(
        msgspec.structs.replace(ended(lie, how=6), errno=2**32 - 1),
        wire.ExecutionStarted(honest.id, truth.execution, 1),
        ended(truth),
    )
    done = await server.engine.executions.get(server.caller, honest.id, ids[1], wait_ms=5_000)
    assert done.state is ExecutionState.SUCCEEDED


async def test_impossible_counters_stop_the_machine_that_reports_them(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    await server.execute(machine)
    start = await node.hear(wire.StartExecution)
    node.say(ended(start, total=2**64 - 1, kept=0))
    assert (await node.hear(wire.StopMachine)).machine_id == machine.id


async def test_what_a_guest_says_of_input_that_is_not_its_own_is_nothing(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    liar, _ = await server.machine(node)
    execution_id = await server.execute(machine, "cat", stdin_mode=StdinMode.OPEN)
    await node.hear(wire.StartExecution)
    data = bytes(100_000)
    await server.engine.executions.write_stdin(server.caller, machine.id, execution_id, offset=0, data=data, eof=True)
    node.say(
        wire.StdinWritten(liar.id, wire_id(execution_id), 2**63, closed=False),
        wire.StdinWritten(liar.id, bytes(range(16)), 2**64 - 1, closed=False),
        wire.StdinWritten(machine.id, wire_id(execution_id), 65_536, closed=False),
    )
    received = b""
    while len(received) < len(data):
        received += (await node.hear(wire.WriteStdin)).data
    assert received == data


# Stopping


async def test_those_who_wait_are_answered_when_the_server_stops(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    execution_id = await server.execute(machine)
    waiting = asyncio.ensure_future(
        server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=55_000)
    )
    await node.hear(wire.StartExecution)
    server.engine.drain()
    async with asyncio.timeout(5):
        assert (await waiting).state is ExecutionState.QUEUED


async def test_nobody_begins_to_wait_once_the_server_stops(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    execution_id = await server.execute(machine)
    server.engine.drain()
    executions, caller = server.engine.executions, server.caller
    async with asyncio.timeout(5):
        assert (await executions.get(caller, machine.id, execution_id, wait_ms=55_000)).state is ExecutionState.QUEUED
        _, read = await executions.entries(caller, machine.id, execution_id, after=0, limit=9, max_bytes=9)
        after = read[-1].sequence
        found = await executions.entries(
            caller, machine.id, execution_id, after=after, limit=9, max_bytes=9, wait_ms=55_000
        )
        assert found[1] == []


# Time


async def test_a_restarted_server_does_not_put_a_machine_to_sleep_early(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock) as first:
        node = await first.node()
        machine, up = await first.machine(node, autosleep_seconds=60)
        clock.forward(3600)
    async with serving(tmp_path, clock) as second:
        node = await second.node(up)
        node.attach(up)
        execution_id = await second.execute(machine)
        node.exited(await node.hear(wire.StartExecution))
        await second.engine.executions.get(second.caller, machine.id, execution_id, wait_ms=5_000)
    async with serving(tmp_path, clock) as third:
        node = await third.node(up)
        node.attach(up)
        await node.hear(wire.ResizeMachine)
        await third.engine._reaper.reap()
        clock.forward(50)
        await third.engine._reaper.reap()
        assert (await third.engine.machines.get(third.caller, machine.id)).phase is Phase.RUNNING


async def test_a_clock_that_went_back_over_a_restart_makes_no_guest_a_liar(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock) as first:
        node = await first.node()
        machine, up = await first.machine(node)
        clock.forward(3600)
        execution_id = await first.execute(machine)
        start = await node.hear(wire.StartExecution)
    async with serving(tmp_path, MovedClock()) as second:
        node = await second.node(up)
        node.attach(up, start.execution)
        node.exited(start)
        done = await second.engine.executions.get(second.caller, machine.id, execution_id, wait_ms=5_000)
        assert done.state is ExecutionState.SUCCEEDED
        assert done.created_at <= (done.started_at or 0) <= (done.completed_at or 0)


async def _waiting_on_a_running_machine(
    server: Server, faults: Faults, node: ScriptedNode, held: AsyncExitStack
) -> str:
    """Have an execution wait for a wake that is over; the answer to the move that follows is held."""
    made = await server.engine.machines.create(server.caller, MachineOrder(), None)
    start = await node.hear(wire.StartMachine)
    async with faults.late("advance") as advancing:
        node.attach(start)
        await advancing.wait()
        await others_run(0.05)  # what waited has been asked for: nothing
        await server.execute(made)
        ready = await held.enter_async_context(faults.late("machine_ready"))
    await ready.wait()
    return made.id


async def test_those_who_waited_for_a_wake_take_no_slot_that_is_promised(tmp_path: Path) -> None:
    faults = Faults()
    async with serving(tmp_path, MovedClock(), Limits(running_per_machine=1), faults.wrap) as server:
        node = await server.node()
        async with AsyncExitStack() as held:
            machine_id = await _waiting_on_a_running_machine(server, faults, node, held)
            second = await server.execute(await server.engine.machines.get(server.caller, machine_id))
        first = await node.hear(wire.StartExecution)
        assert first.execution != wire_id(second)
        waits = await server.engine.executions.get(server.caller, machine_id, second)
        assert (waits.state, waits.boot_id) == (ExecutionState.QUEUED, None)
        node.exited(first)
        assert (await node.hear(wire.StartExecution)).execution == wire_id(second)


async def test_those_who_wait_are_not_claimed_while_the_node_is_away(
    tmp_path: Path, clock: MovedClock, faults: Faults
) -> None:
    async with serving(tmp_path, clock, Limits(), faults.wrap) as server:
        node = await server.node()
        made = await server.engine.machines.create(server.caller, MachineOrder(), None)
        start = await node.hear(wire.StartMachine)
        async with faults.late("advance") as advancing:
            node.attach(start)
            await advancing.wait()
            await others_run(0.05)
            waiting = await server.execute(made)
            await node.hang_up()
            await server.without_node()
        waits = await server.engine.executions.get(server.caller, made.id, waiting)
        while waits.state is ExecutionState.WAKE_IN_PROGRESS:
            await others_run(0.01)
            waits = await server.engine.executions.get(server.caller, made.id, waiting)
        assert (waits.state, waits.boot_id) == (ExecutionState.QUEUED, None)
