"""Sleep, wake, failures and deadlines of machines, and what they mean for executions."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from dormice.domain.errors import Conflict, Invalid, NotFound
from dormice.domain.execution import ErrorCode, ExecutionState, Stream
from dormice.domain.limits import SECOND_US, Limits
from dormice.domain.machine import DesiredState, Machine, Phase
from dormice.domain.ssh import SshState
from dormice.engine.orders import Caller, ExecutionOrder, Idempotency, MachineOrder, MachinePatch
from dormice.protocol import node as wire
from tests.engine.scripted_node import (
    MovedClock,
    ScriptedNode,
    Server,
    asleep,
    ended,
    phase,
    record_ssh_session,
    serving,
)
from tests.wait import others_run, wait_until_async

TRUE = ExecutionOrder(command=("true",), cwd="/root")


async def _run(server: Server, node: ScriptedNode, machine: Machine) -> None:
    """Let a command be run to its end."""
    execution_id = await server.execute(machine)
    node.exited(await node.hear(wire.StartExecution))
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    assert done.terminal


async def _stays_awake(server: Server, node: ScriptedNode, machine: Machine) -> None:
    """The reaper looks at a machine whose guest answers, and leaves it alone."""

    async def attached() -> bool:
        live = server.engine._board.get(machine.id)
        return live is not None and live.attached

    await wait_until_async(attached, 10, "the guest answers")
    await server.engine._reaper.reap()
    await node.hears_nothing_of(wire.StopMachine)


async def test_an_idle_machine_falls_asleep_after_its_time_and_not_before(server: Server, clock: MovedClock) -> None:
    node = await server.node()
    machine, _ = await server.machine(node, autosleep_seconds=60)
    clock.forward(50)
    execution_id = await server.execute(machine)
    node.exited(await node.hear(wire.StartExecution))
    await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    clock.forward(50)
    await server.engine.machines.get(server.caller, machine.id)
    assert (await server.engine.machines.get(server.caller, machine.id)).phase is Phase.RUNNING
    clock.forward(11)
    await node.hear(wire.StopMachine)
    assert (await server.engine.machines.get(server.caller, machine.id)).phase is Phase.STOPPING


@pytest.mark.parametrize("used", [True, False])
async def test_a_restart_forgets_no_idle_time_of_a_machine_that_was_used(
    tmp_path: Path, clock: MovedClock, *, used: bool
) -> None:
    async with serving(tmp_path, clock) as server:
        node = await server.node()
        machine, up = await server.machine(node, autosleep_seconds=60)
        clock.forward(50)
        if used:
            await _run(server, node, machine)
        clock.forward(40)
    async with serving(tmp_path, clock) as server:
        node = await server.node(up)
        node.attach(up)
        await _stays_awake(server, node, machine)
        clock.forward(21)
        if not used:  # when it was used last is not known: the start of the server counts
            await _stays_awake(server, node, machine)
            clock.forward(40)
        await node.hear(wire.StopMachine)
        assert (await server.engine.machines.get(server.caller, machine.id)).phase is Phase.STOPPING


async def test_after_a_restart_a_change_of_the_machine_counts_as_use(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock) as server:
        node = await server.node()
        machine, up = await server.machine(node, autosleep_seconds=60)
        await _run(server, node, machine)
        clock.forward(50)
        changed = await server.engine.machines.patch(
            server.caller, machine.id, MachinePatch(memory_mib=2048), revision=None, idempotency=None
        )
        assert changed.last_activity_at - machine.last_activity_at >= 50_000_000
    async with serving(tmp_path, clock) as server:
        node = await server.node(up)
        node.attach(up)
        clock.forward(50)
        await _stays_awake(server, node, machine)
        clock.forward(11)
        await node.hear(wire.StopMachine)


async def test_an_open_execution_holds_its_machine_awake(server: Server, clock: MovedClock) -> None:
    node = await server.node()
    machine, _ = await server.machine(node, autosleep_seconds=1)
    execution_id = await server.execute(machine)
    start = await node.hear(wire.StartExecution)
    clock.forward(3600)
    node.exited(start)
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    assert done.state is ExecutionState.SUCCEEDED
    await node.hears_nothing_of(wire.StopMachine)


async def test_a_thousand_posts_to_a_sleeping_machine_wake_it_once(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    await asleep(server, node, machine, up)
    made = await asyncio.gather(
        *(server.engine.executions.create(server.caller, machine.id, TRUE, None) for _ in range(1000))
    )
    assert {execution.state for execution in made} == {ExecutionState.WAKE_IN_PROGRESS}
    again = await node.start_machine()
    assert again.boot_id != up.boot_id
    for _ in range(1000):
        node.exited(await node.hear(wire.StartExecution))
    for execution in made:
        done = await server.engine.executions.get(server.caller, machine.id, execution.id, wait_ms=10_000)
        assert done.state is ExecutionState.SUCCEEDED
    await node.hears_nothing_of(wire.StartMachine)


async def test_a_post_to_a_machine_that_is_falling_asleep_wakes_it_afterwards(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    await server.engine.machines.sleep(server.caller, machine.id, revision=None, idempotency=None)
    await node.hear(wire.StopMachine)
    late = await server.engine.executions.create(server.caller, machine.id, TRUE, None)
    assert late.state is ExecutionState.WAKE_IN_PROGRESS
    node.say(wire.MachineEnded(machine.id, up.boot_id, clean=True, reason=""))
    await node.start_machine()
    node.exited(await node.hear(wire.StartExecution))
    done = await server.engine.executions.get(server.caller, machine.id, late.id, wait_ms=5_000)
    assert done.state is ExecutionState.SUCCEEDED


async def test_an_explicit_sleep_ends_what_runs_and_what_waits(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock, Limits(running_per_machine=1)) as server:
        node = await server.node()
        machine, up = await server.machine(node)
        runs, waits = await server.execute(machine), await server.execute(machine)
        start = await node.hear(wire.StartExecution)
        node.say(wire.ExecutionStarted(machine.id, start.execution, 1))
        await server.engine.machines.sleep(server.caller, machine.id, revision=None, idempotency=None)
        node.say(wire.MachineEnded(machine.id, up.boot_id, clean=True, reason=""))
        for execution_id in (runs, waits):
            done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
            assert (done.state, done.error_code) == (ExecutionState.FAILED, ErrorCode.EXECUTION_RUNNER_INTERRUPTED)
        assert await phase(server, machine.id, Phase.SLEEPING) is Phase.SLEEPING


async def test_a_machine_that_cannot_start_fails_those_who_wait_and_takes_no_more(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    await server.engine.machines.sleep(server.caller, machine.id, revision=None, idempotency=None)
    node.say(wire.MachineEnded(machine.id, up.boot_id, clean=True, reason=""))
    await phase(server, machine.id, Phase.SLEEPING)
    execution_id = await server.execute(machine)
    start = await node.hear(wire.StartMachine)
    node.say(wire.MachineFailed(machine.id, start.boot_id, "STORAGE_EXHAUSTED", "the disk is full", retryable=True))
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    assert (done.state, done.error_code) == (ExecutionState.FAILED, ErrorCode.WAKE_FAILED)
    failed = await server.engine.machines.get(server.caller, machine.id)
    assert (failed.phase, failed.retryable) == (Phase.FAILED, True)
    assert "STORAGE_EXHAUSTED" in (failed.last_error or "")
    with pytest.raises(Conflict, match="takes no executions"):
        await server.execute(machine)
    await server.engine.machines.wake(server.caller, machine.id, revision=None, idempotency=None)
    await node.start_machine()
    assert await phase(server, machine.id, Phase.RUNNING) is Phase.RUNNING


async def test_a_machine_that_dies_at_every_start_is_not_started_for_ever(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    await server.engine.machines.sleep(server.caller, machine.id, revision=None, idempotency=None)
    node.say(wire.MachineEnded(machine.id, up.boot_id, clean=True, reason=""))
    await phase(server, machine.id, Phase.SLEEPING)
    await server.execute(machine)
    start = await node.hear(wire.StartMachine)
    node.say(wire.MachineEnded(machine.id, start.boot_id, clean=False, reason="process 1 died"))
    assert await phase(server, machine.id, Phase.FAILED) is Phase.FAILED


async def test_a_node_that_stays_away_loses_its_executions_and_is_told_so(server: Server, clock: MovedClock) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    execution_id = await server.execute(machine)
    start = await node.hear(wire.StartExecution)
    await node.hang_up()
    await server.without_node()
    clock.forward(61)
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    assert (done.state, done.error_code) == (ExecutionState.FAILED, ErrorCode.MACHINE_LOST)
    node = await server.node(up)
    node.attach(up, start.execution)
    assert (await node.hear(wire.StopMachine)).grace_ms == 0


async def test_what_cannot_start_in_time_expires(server: Server, clock: MovedClock) -> None:
    machine = await server.engine.machines.create(server.caller, MachineOrder(), None)
    execution_id = await server.execute(machine, start_timeout_ms=5_000)
    clock.forward(6)
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    assert (done.state, done.error_code) == (ExecutionState.EXPIRED, ErrorCode.START_DEADLINE_EXCEEDED)
    assert done.started_at is None


async def test_a_machine_without_a_node_starts_when_one_comes(server: Server) -> None:
    machine = await server.engine.machines.create(server.caller, MachineOrder(), None)
    assert await phase(server, machine.id, Phase.PLACEMENT_PENDING) is Phase.PLACEMENT_PENDING
    node = await server.node()
    await node.start_machine()
    assert await phase(server, machine.id, Phase.RUNNING) is Phase.RUNNING


async def test_executions_start_in_order_and_within_the_slots(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock, Limits(running_per_machine=2)) as server:
        node = await server.node()
        machine, _ = await server.machine(node)
        for number in range(6):
            await server.execute(machine, "echo", str(number))
        order = []
        running = [await node.hear(wire.StartExecution) for _ in range(2)]
        while running:
            await node.hears_nothing_of(wire.StartExecution)
            start = running.pop(0)
            order.append(start.argv[1])
            node.exited(start)
            if len(order) + len(running) < 6:
                running.append(await node.hear(wire.StartExecution))
        assert order == [str(number) for number in range(6)]


async def test_fifty_requests_with_one_key_make_one_execution(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    key = Idempotency("POST /executions", "one", b"request")
    made = await asyncio.gather(
        *(server.engine.executions.create(server.caller, machine.id, TRUE, key) for _ in range(50))
    )
    assert len({execution.id for execution in made}) == 1
    node.exited(await node.hear(wire.StartExecution))
    await server.engine.executions.get(server.caller, machine.id, made[0].id, wait_ms=5_000)
    await node.hears_nothing_of(wire.StartExecution)
    with pytest.raises(Conflict) as refused:
        await server.engine.executions.create(
            server.caller, machine.id, TRUE, Idempotency("POST /executions", "one", b"other")
        )
    assert refused.value.code == "IDEMPOTENCY_KEY_REUSED"


async def test_a_deleted_machine_ends_its_executions_and_stays_readable(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    execution_id = await server.execute(machine)
    await node.hear(wire.StartExecution)
    await server.engine.machines.destroy(server.caller, machine.id, revision=None, idempotency=None)
    await node.hear(wire.DestroyMachine)
    node.say(wire.MachineDestroyed(machine.id))
    gone = await server.engine.machines.get(server.caller, machine.id, wait_ms=5_000)
    assert (gone.phase, gone.desired_state) == (Phase.DESTROYED, DesiredState.DESTROYED)
    done = await server.engine.executions.get(server.caller, machine.id, execution_id)
    assert done.error_code is ErrorCode.EXECUTION_RUNNER_INTERRUPTED
    with pytest.raises(NotFound):
        await server.execute(machine)
    with pytest.raises(Conflict):
        await server.engine.machines.sleep(server.caller, machine.id, revision=None, idempotency=None)
    assert await server.engine.machines.page(server.caller, before=None, limit=10) == []


async def test_nobody_sees_another_organizations_machine(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    stranger = Caller("00000000-0000-4000-8000-000000000000", "key-2", admin=True)
    with pytest.raises(NotFound):
        await server.engine.machines.get(stranger, machine.id)
    with pytest.raises(NotFound):
        await server.engine.executions.create(stranger, machine.id, TRUE, None)


@pytest.mark.parametrize(
    ("order", "location"),
    [
        ({"vcpu": 9.0}, "body.vcpu"),
        ({"vcpu": 0.3}, "body.vcpu"),
        ({"memory_mib": 1 << 20}, "body.memory_mib"),
        ({"storage_gib": 0}, "body.storage_gib"),
        ({"storage_gib": 501}, "body.storage_gib"),
        ({"autosleep_seconds": -1}, "body.autosleep"),
        ({"image": "nosuch"}, "body.image"),
    ],
)
async def test_sizes_beyond_the_host_are_refused_by_name(
    server: Server, order: dict[str, float], location: str
) -> None:
    node = await server.node()
    await server.machine(node)
    with pytest.raises(Invalid) as refused:
        await server.engine.machines.create(server.caller, MachineOrder(**order), None)  # type: ignore[arg-type]
    assert refused.value.location == location


@pytest.mark.parametrize(
    ("memory_mib", "words"),
    [(1, r"memory_mib is 1, must be between 64 and \d+ MiB of the host$"), (1 << 20, "exceeds capacity$")],
)
async def test_only_what_is_too_large_exceeds_capacity(server: Server, memory_mib: int, words: str) -> None:
    await server.machine(await server.node())
    with pytest.raises(Invalid, match=words):
        await server.engine.machines.create(server.caller, MachineOrder(memory_mib=memory_mib), None)


async def test_a_resize_reaches_the_node_and_storage_never_shrinks(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    grown = await server.engine.machines.patch(
        server.caller, machine.id, MachinePatch(memory_mib=2048, storage_gib=20), revision=None, idempotency=None
    )
    assert (grown.memory_mib, grown.storage_gib, grown.revision) == (2048, 20, machine.revision + 1)
    sizes = await node.hear(wire.ResizeMachine)
    assert (sizes.memory_mib, sizes.storage_gib) == (2048, 20)
    with pytest.raises(Invalid, match="grow, not shrink"):
        await server.engine.machines.patch(
            server.caller, machine.id, MachinePatch(storage_gib=10), revision=None, idempotency=None
        )
    with pytest.raises(Conflict) as refused:
        await server.engine.machines.wake(server.caller, machine.id, revision="1", idempotency=None)
    assert refused.value.code == "REVISION_MISMATCH"


async def test_a_reboot_ends_what_runs_and_starts_what_waits_on_the_next_boot(
    tmp_path: Path, clock: MovedClock
) -> None:
    async with serving(tmp_path, clock, Limits(running_per_machine=1)) as server:
        node = await server.node()
        machine, up = await server.machine(node)
        runs, waits = await server.execute(machine), await server.execute(machine)
        start = await node.hear(wire.StartExecution)
        node.say(wire.ExecutionStarted(machine.id, start.execution, 1))
        asked = await server.engine.machines.reboot(
            server.caller, machine.id, force=True, revision=None, idempotency=None
        )
        assert (asked.phase, asked.desired_state) == (Phase.STOPPING, DesiredState.RUNNING)
        assert (await node.hear(wire.StopMachine)).grace_ms == 0
        node.say(wire.MachineEnded(machine.id, up.boot_id, clean=False, reason="killed"))
        again = await node.start_machine()
        assert again.boot_id != up.boot_id
        node.exited(await node.hear(wire.StartExecution))
        done = await server.engine.executions.get(server.caller, machine.id, waits, wait_ms=5_000)
        assert done.state is ExecutionState.SUCCEEDED
        ended = await server.engine.executions.get(server.caller, machine.id, runs)
        assert ended.error_code is ErrorCode.EXECUTION_RUNNER_INTERRUPTED


async def test_a_key_brings_back_what_it_made_even_where_a_new_request_would_be_refused(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    key = Idempotency("POST /executions", "one", b"request")
    made = await server.engine.executions.create(server.caller, machine.id, TRUE, key)
    node.exited(await node.hear(wire.StartExecution))
    await server.engine.executions.get(server.caller, machine.id, made.id, wait_ms=5_000)
    await server.engine.machines.destroy(server.caller, machine.id, revision=None, idempotency=None)
    with pytest.raises(Conflict, match="takes no executions"):
        await server.execute(machine)
    assert (await server.engine.executions.create(server.caller, machine.id, TRUE, key)).id == made.id
    node.say(wire.MachineDestroyed(machine.id))
    await phase(server, machine.id, Phase.DESTROYED)
    assert (await server.engine.executions.create(server.caller, machine.id, TRUE, key)).id == made.id
    with pytest.raises(Conflict) as refused:
        await server.engine.executions.create(
            server.caller, machine.id, TRUE, Idempotency("POST /executions", "one", b"other")
        )
    assert refused.value.code == "IDEMPOTENCY_KEY_REUSED"


async def test_an_old_key_wakes_no_machine(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    key = Idempotency("POST /executions", "one", b"request")
    made = await server.engine.executions.create(server.caller, machine.id, TRUE, key)
    node.exited(await node.hear(wire.StartExecution))
    await server.engine.executions.get(server.caller, machine.id, made.id, wait_ms=5_000)
    await asleep(server, node, machine, up)
    assert (await server.engine.executions.create(server.caller, machine.id, TRUE, key)).id == made.id
    await node.hears_nothing_of(wire.StartMachine)
    assert (await server.engine.machines.get(server.caller, machine.id)).phase is Phase.SLEEPING


async def test_an_old_wake_key_starts_nothing(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    key = Idempotency("POST /wake", "w", b"request")
    await asleep(server, node, machine, up)
    await server.engine.machines.wake(server.caller, machine.id, revision=None, idempotency=key)
    again = await node.start_machine()
    await phase(server, machine.id, Phase.RUNNING)
    await asleep(server, node, machine, again)
    answer = await server.engine.machines.wake(server.caller, machine.id, revision=None, idempotency=key)
    assert answer.phase is Phase.SLEEPING
    await node.hears_nothing_of(wire.StartMachine)


async def test_an_old_sleep_key_ends_nothing(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock, Limits(running_per_machine=1)) as server:
        node = await server.node()
        machine, up = await server.machine(node)
        key = Idempotency("POST /sleep", "s", b"request")
        await asleep(server, node, machine, up, key)
        await server.engine.machines.wake(server.caller, machine.id, revision=None, idempotency=None)
        await node.start_machine()
        await phase(server, machine.id, Phase.RUNNING)
        await server.execute(machine)
        queued = await server.execute(machine)
        await node.hear(wire.StartExecution)
        answer = await server.engine.machines.sleep(server.caller, machine.id, revision=None, idempotency=key)
        assert answer.phase is Phase.RUNNING
        await node.hears_nothing_of(wire.StopMachine)
        found = await server.engine.executions.get(server.caller, machine.id, queued)
        assert found.state is ExecutionState.QUEUED


async def test_a_guest_that_sends_more_than_is_kept_fills_no_store(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock, Limits(kept_output_bytes=4)) as server:
        node = await server.node()
        machine, _ = await server.machine(node)
        execution_id = await server.execute(machine)
        start = await node.hear(wire.StartExecution)
        node.say(
            wire.ExecutionStarted(machine.id, start.execution, 1),
            wire.Output(machine.id, start.execution, 1, 0, b"abcdef"),
            wire.Output(machine.id, start.execution, 1, 6, b"ghi"),
        )
        assert (await node.hear(wire.AckOutput)).offset in (6, 9)
        node.say(ended(start, total=9))
        done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
        assert (done.stdout_kept, done.stdout_bytes) == (4, 9)
        assert await server.engine.executions.output(done, Stream.STDOUT, start=0, end=100) == b"abcd"


async def test_what_waits_while_the_machine_goes_is_answered_well(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    live = server.engine._board.get(machine.id)
    assert live is not None
    machines, caller = server.engine.machines, server.caller
    async with live.lock:
        asked = asyncio.gather(
            *(
                act(caller, machine.id, revision=None, idempotency=None)
                for act in (machines.destroy, machines.sleep, machines.wake)
            ),
            return_exceptions=True,
        )
        await others_run()
        live.machine = replace(live.machine, phase=Phase.DESTROYED, desired_state=DesiredState.DESTROYED)
    destroyed, *others = await asked
    assert isinstance(destroyed, Machine)
    assert destroyed.phase is Phase.DESTROYED
    assert all(isinstance(other, Conflict) for other in others), others


async def test_listing_ssh_sessions_wakes_no_machine(server: Server, clock: MovedClock) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    await asleep(server, node, machine, up)
    made = await record_ssh_session(server, machine, clock.now() + 3_600 * SECOND_US)
    [listed] = await server.engine.ssh_sessions.page(server.caller, machine.id, before=None, limit=9)
    assert (listed.id, listed.state) == (made.id, SshState.WAKE_IN_PROGRESS)
    await node.hears_nothing_of(wire.StartMachine)
    await server.engine.ssh_sessions.get(server.caller, machine.id, made.id)
    await node.hear(wire.StartMachine)
