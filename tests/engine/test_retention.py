"""What has ended is forgotten after its time, as callers see it; a key that still counts keeps what it made."""

from __future__ import annotations

from pathlib import Path

import pytest

from dormice.domain.errors import NotFound
from dormice.domain.execution import Stream
from dormice.domain.limits import SECOND_US, Limits
from dormice.domain.machine import Phase
from dormice.engine.orders import ExecutionOrder, Idempotency
from dormice.protocol import node as wire
from tests.engine.scripted_node import MovedClock, ScriptedNode, Server, phase, record_ssh_session, serving
from tests.wait import wait_until_async

HOUR = 3_600
TRUE = ExecutionOrder(command=("true",), cwd="/root")


async def delete_all(server: Server) -> int:
    """Delete until nothing is left; how many rows that were."""
    total = 0
    while deleted := await server.engine._retention.delete():
        total += deleted
    return total


async def finish(
    server: Server, node: ScriptedNode, machine_id: str, key: str | None = None, output: bytes = b""
) -> str:
    idempotency = None if key is None else Idempotency(f"POST {machine_id}", key, b"request")
    made = await server.engine.executions.create(server.caller, machine_id, TRUE, idempotency)
    node.exited(await node.hear(wire.StartExecution), output=output)
    done = await server.engine.executions.get(server.caller, machine_id, made.id, wait_ms=5_000)
    assert done.terminal
    return made.id


async def listed(server: Server, machine_id: str) -> list[str]:
    return [one.id for one in await server.engine.executions.page(server.caller, machine_id, before=None, limit=100)]


async def test_a_finished_execution_is_gone_after_its_time_and_not_before(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock, Limits(keep_finished_hours=48)) as server:
        node = await server.node()
        machine, _ = await server.machine(node, autosleep_seconds=0)
        old = await finish(server, node, machine.id, output=b"old")
        clock.forward(47 * HOUR)
        new = await finish(server, node, machine.id)
        assert await delete_all(server) == 0
        assert await listed(server, machine.id) == [new, old]
        clock.forward(2 * HOUR)
        assert await delete_all(server) > 0
        assert await listed(server, machine.id) == [new]
        for ask in (
            server.engine.executions.get(server.caller, machine.id, old),
            server.engine.executions.cancel(server.caller, machine.id, old),
            server.engine.executions.entries(server.caller, machine.id, old, after=0, limit=10, max_bytes=1),
        ):
            with pytest.raises(NotFound):
                await ask


async def test_what_runs_or_waits_is_kept_however_long_it_takes(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock, Limits(keep_finished_hours=24, machine_lost_ms=10**12)) as server:
        node = await server.node()
        machine, _ = await server.machine(node)
        execution_id = await server.execute(machine)
        start = await node.hear(wire.StartExecution)
        node.say(wire.ExecutionStarted(machine.id, start.execution, 1))
        clock.forward(1_000 * HOUR)
        assert await delete_all(server) == 0
        node.exited(start)
        done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
        assert done.terminal


async def test_a_key_that_still_counts_finds_what_it_made(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock, Limits(keep_finished_hours=1, idempotency_hours=24)) as server:
        node = await server.node()
        machine, _ = await server.machine(node, autosleep_seconds=0)
        made = await finish(server, node, machine.id, key="k")
        clock.forward(23 * HOUR)
        assert await delete_all(server) == 0
        key = Idempotency(f"POST {machine.id}", "k", b"request")
        again = await server.engine.executions.create(server.caller, machine.id, TRUE, key)
        assert again.id == made
        clock.forward(2 * HOUR)
        assert await delete_all(server) > 0
        assert await finish(server, node, machine.id, key="k") != made


async def test_zero_keeps_for_ever(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock, Limits(keep_finished_hours=0)) as server:
        node = await server.node()
        machine, _ = await server.machine(node, autosleep_seconds=0)
        old = await finish(server, node, machine.id)
        clock.forward(100_000 * HOUR)
        assert await delete_all(server) == 0
        assert await listed(server, machine.id) == [old]


async def test_a_destroyed_machine_is_gone_after_its_time(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock, Limits(keep_finished_hours=24)) as server:
        node = await server.node()
        machine, _ = await server.machine(node)
        old = await finish(server, node, machine.id)
        await server.engine.machines.destroy(server.caller, machine.id, revision=None, idempotency=None)
        node.say(wire.MachineDestroyed(machine.id))
        assert await phase(server, machine.id, Phase.DESTROYED) is Phase.DESTROYED
        clock.forward(23 * HOUR)
        assert await delete_all(server) == 0
        assert await listed(server, machine.id) == [old]
        clock.forward(2 * HOUR)
        await delete_all(server)
        with pytest.raises(NotFound):
            await server.engine.machines.get(server.caller, machine.id)


async def test_the_service_does_it_by_itself(
    tmp_path: Path, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dormice.engine.retention.LOOK_EVERY_SECONDS", 0.01)
    async with serving(tmp_path, clock, Limits(keep_finished_hours=24)) as server:
        node = await server.node()
        machine, _ = await server.machine(node, autosleep_seconds=0)
        for _ in range(3):
            await finish(server, node, machine.id)
        clock.forward(25 * HOUR)

        async def none_left() -> bool:
            return not await listed(server, machine.id)

        await wait_until_async(none_left, 10, "every execution is deleted")


async def test_who_reads_while_it_is_deleted_is_told_so_and_gets_no_wrong_byte(
    tmp_path: Path, clock: MovedClock
) -> None:
    async with serving(tmp_path, clock, Limits(keep_finished_hours=24)) as server:
        node = await server.node()
        machine, _ = await server.machine(node, autosleep_seconds=0)
        made = await server.engine.executions.create(server.caller, machine.id, TRUE, None)
        start = await node.hear(wire.StartExecution)
        node.say(wire.ExecutionStarted(machine.id, start.execution, 1))
        piece = 1 << 16
        for number in range(24):
            node.say(wire.Output(machine.id, start.execution, 1, number * piece, bytes([number]) * piece))
        node.exited(start, output=b"")
        done = await server.engine.executions.get(server.caller, machine.id, made.id, wait_ms=5_000)
        assert done.stdout_kept == 24 * piece
        clock.forward(25 * HOUR)
        assert await server.engine._retention.delete() > 0  # a piece of it: the first entries
        with pytest.raises(NotFound):
            await server.engine.executions.output(done, Stream.STDOUT, start=piece, end=24 * piece)
        assert await server.engine._store.executions.entries(done, after=2, limit=100, max_bytes=1 << 30) == []


async def test_who_is_logged_in_by_ssh_is_hung_up_on_when_the_session_is_forgotten(
    tmp_path: Path, clock: MovedClock
) -> None:
    async with serving(tmp_path, clock, Limits(keep_finished_hours=48)) as server:
        machine, _ = await server.machine(await server.node(), autosleep_seconds=0)
        made = await record_ssh_session(server, machine, clock.now() + HOUR * SECOND_US)
        told: list[str] = []
        with server.engine.ssh_sessions.logged_in(server.caller, made.id, machine.id, told.append):
            clock.forward(48 * HOUR)
            await delete_all(server)
            assert told == []
            clock.forward(2 * HOUR)
            assert await delete_all(server) > 0
            [why] = told
            assert "expired" in why
