"""What engine and node do when frames, connections and processes get lost between any two steps."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest

from dormice.api.machines.wire import truncated
from dormice.domain.execution import ErrorCode, ExecutionState, StdinMode, Stream
from dormice.domain.limits import Limits
from dormice.domain.machine import Phase
from dormice.engine.orders import TerminalOrder
from dormice.protocol import node as wire
from dormice.telemetry.counts import Counts
from tests.engine.scripted_node import MovedClock, ScriptedNode, Server, ended, phase, serving, wire_id
from tests.wait import others_run


async def test_a_short_command_is_committed_with_its_output_and_forgotten(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    execution_id = await server.execute(machine, "echo", "hi")
    start = await node.hear(wire.StartExecution)
    node.exited(start, output=b"hi\n")
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    assert (done.state, done.exit_code, done.stdout_bytes) == (ExecutionState.SUCCEEDED, 0, 3)
    assert (await node.hear(wire.Forget)).execution == start.execution
    assert await server.engine.executions.output(done, Stream.STDOUT, start=0, end=10) == b"hi\n"


async def test_a_start_frame_that_was_lost_is_sent_again_for_the_same_boot(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    execution_id = await server.execute(machine)
    first = await node.hear(wire.StartExecution)
    await node.hang_up()
    node = await server.node(up)
    node.attach(up)
    again = await node.hear(wire.StartExecution)
    assert (again.execution, again.boot_id) == (first.execution, first.boot_id) == (wire_id(execution_id), up.boot_id)


async def test_an_execution_that_the_guest_knows_is_not_started_again(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    execution_id = await server.execute(machine)
    start = await node.hear(wire.StartExecution)
    await node.hang_up()
    node = await server.node(up)
    node.attach(up, start.execution)
    node.exited(start)
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    assert done.state is ExecutionState.SUCCEEDED
    await node.hears_nothing_of(wire.StartExecution)


async def test_a_running_execution_that_its_guest_no_longer_knows_is_lost(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    execution_id = await server.execute(machine)
    start = await node.hear(wire.StartExecution)
    node.say(wire.ExecutionStarted(start.machine_id, start.execution, 1))
    await server.engine.executions.entries(
        server.caller, machine.id, execution_id, after=1, limit=1, max_bytes=1, wait_ms=5_000
    )
    await node.hang_up()
    node = await server.node(up)
    node.attach(up)
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    assert (done.state, done.error_code) == (ExecutionState.FAILED, ErrorCode.MACHINE_LOST)


async def test_output_that_is_sent_again_is_kept_once(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    execution_id = await server.execute(machine)
    start = await node.hear(wire.StartExecution)
    node.say(
        wire.ExecutionStarted(start.machine_id, start.execution, 1),
        wire.Output(start.machine_id, start.execution, 1, 0, b"abc"),
    )
    assert (await node.hear(wire.AckOutput)).offset == 3
    await node.hang_up()
    node = await server.node(up)
    node.attach(up, start.execution)
    node.say(wire.Output(start.machine_id, start.execution, 1, 0, b"abcdef"), ended(start, total=6))
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    assert await server.engine.executions.output(done, Stream.STDOUT, start=0, end=100) == b"abcdef"
    _, entries = await server.engine.executions.entries(
        server.caller, machine.id, execution_id, after=0, limit=100, max_bytes=1 << 20
    )
    assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
    assert b"".join(entry.data for entry in entries) == b"abcdef"


async def test_an_end_without_its_output_is_asked_for_again(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    execution_id = await server.execute(machine)
    start = await node.hear(wire.StartExecution)
    node.say(wire.ExecutionStarted(machine.id, start.execution, 1), ended(start, total=6))  # its output was lost
    assert await node.hear(wire.SayAgain) == wire.SayAgain(machine.id)
    record = await server.engine.executions.get(server.caller, machine.id, execution_id)
    assert not record.terminal
    node.attach(up, start.execution)
    node.exited(start, output=b"abcdef")
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    assert (done.state, done.stdout_bytes, done.stdout_kept) == (ExecutionState.SUCCEEDED, 6, 6)
    assert (await node.hear(wire.Forget)).execution == start.execution
    await node.hears_nothing_of(wire.StartExecution)


async def test_output_that_is_gone_is_called_lost(
    tmp_path: Path, clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    counts = Counts()
    async with serving(tmp_path, clock, observer=counts) as server:
        node = await server.node()
        machine, up = await server.machine(node)
        execution_id = await server.execute(machine)
        start = await node.hear(wire.StartExecution)
        report = (
            wire.ExecutionStarted(machine.id, start.execution, 1),
            wire.Output(machine.id, start.execution, 1, 0, b"abc"),
            ended(start, total=6),
        )
        node.say(*report)
        await node.hear(wire.SayAgain)
        node.attach(up, start.execution)
        node.say(*report)
        done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
        assert (done.state, done.stdout_bytes, done.stdout_kept) == (ExecutionState.SUCCEEDED, 6, 3)
        assert truncated(done, Stream.STDOUT, Limits())
        assert f"execution {execution_id} has ended without 3 bytes of its output" in caplog.text
        assert counts.lost_bytes == 3
        await node.hears_nothing_of(wire.SayAgain)


async def test_of_a_terminal_all_that_is_gone_counts_as_lost(tmp_path: Path, clock: MovedClock) -> None:
    counts = Counts()
    async with serving(tmp_path, clock, Limits(kept_output_bytes=4), observer=counts) as server:
        node = await server.node()
        machine, up = await server.machine(node)
        order = TerminalOrder(width=80, height=24, command=("bash",), cwd="/")
        made = await server.engine.terminals.create(server.caller, machine.id, order, None)
        start = await node.hear(wire.StartExecution)
        report = (
            wire.ExecutionStarted(machine.id, start.execution, 1),
            wire.Output(machine.id, start.execution, 1, 0, b"abcde"),
            ended(start, total=12),
        )
        node.say(*report)
        await node.hear(wire.SayAgain)
        node.attach(up, start.execution)
        node.say(*report)
        await node.hear(wire.Forget)
        [found] = await server.engine.terminals.page(server.caller, machine.id, before=None, limit=9)
        assert (found.id, found.execution.terminal, found.execution.stdout_kept) == (made.id, True, 5)
        assert counts.lost_bytes == 7


async def test_news_of_an_execution_that_has_ended_is_answered_with_kill_and_forget(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    stranger = wire_id("exec-00000000-0000-7000-8000-000000000001")
    node.attach(up, stranger)
    cancel = await node.hear(wire.CancelExecution)
    assert (cancel.execution, cancel.grace_ms) == (stranger, 0)
    assert (await node.hear(wire.Forget)).execution == stranger
    assert machine.phase is Phase.RUNNING


async def test_a_cancel_while_the_node_is_away_ends_what_never_started(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    execution_id = await server.execute(machine)
    await node.hear(wire.StartExecution)
    await node.hang_up()
    node = await server.node(up)
    asked = await server.engine.executions.cancel(server.caller, machine.id, execution_id)
    assert asked.cancel_requested_at is not None
    node.attach(up)
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    assert (done.state, done.started_at) == (ExecutionState.CANCELLED, None)
    await node.hears_nothing_of(wire.StartExecution)


async def test_a_cancel_that_was_lost_is_sent_again(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    execution_id = await server.execute(machine)
    start = await node.hear(wire.StartExecution)
    await server.engine.executions.cancel(server.caller, machine.id, execution_id)
    await node.hear(wire.CancelExecution)
    await node.hang_up()
    node = await server.node(up)
    node.attach(up, start.execution)
    assert (await node.hear(wire.CancelExecution)).execution == start.execution
    node.say(ended(start, 15, how=2))
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    assert (done.state, done.signal) == (ExecutionState.CANCELLED, 15)


async def test_a_server_that_was_killed_goes_on_where_its_store_is(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock) as first:
        node = await first.node()
        machine, up = await first.machine(node)
        running = await first.execute(machine)
        start = await node.hear(wire.StartExecution)
        unsent = await first.execute(machine, "cat", env={"NAME": "value"}, stdin_mode=StdinMode.GIVEN, stdin=b"in")
    async with serving(tmp_path, clock) as second:
        node = await second.node(up)
        node.attach(up, start.execution)
        again = await node.hear(wire.StartExecution)
        assert (again.execution, again.env) == (wire_id(unsent), {"NAME": "value"})
        stdin = await node.hear(wire.WriteStdin)
        assert (stdin.offset, stdin.data, stdin.eof) == (0, b"in", True)
        node.exited(start)
        node.exited(again)
        for execution_id in (running, unsent):
            done = await second.engine.executions.get(second.caller, machine.id, execution_id, wait_ms=5_000)
            assert done.state is ExecutionState.SUCCEEDED


@pytest.mark.parametrize("known", [True, False])
async def test_a_machine_of_another_boot_has_lost_its_executions(server: Server, known: bool) -> None:  # noqa: FBT001
    node = await server.node()
    machine, up = await server.machine(node)
    execution_id = await server.execute(machine)
    await node.hear(wire.StartExecution)
    await node.hang_up()
    other = wire.MachineSeen(up.machine_id, bytes(16))
    node = await server.node(
        *([wire.StartMachine(other.machine_id, other.boot_id, 1, 1, 1, "default")] if known else [])
    )
    done = await server.engine.executions.get(server.caller, machine.id, execution_id, wait_ms=5_000)
    assert (done.state, done.error_code) == (ExecutionState.FAILED, ErrorCode.MACHINE_LOST)
    assert await phase(server, machine.id, Phase.SLEEPING) is Phase.SLEEPING


async def test_standard_input_follows_the_guests_credit(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    execution_id = await server.execute(machine, "cat", stdin_mode=StdinMode.OPEN)
    start = await node.hear(wire.StartExecution)
    data = bytes(range(256)) * 600
    await server.engine.executions.write_stdin(server.caller, machine.id, execution_id, offset=0, data=data, eof=True)
    assert await heard_stdin(node, 0, 65_536) == data[:65_536]
    node.say(wire.StdinWritten(machine.id, start.execution, 40_000, closed=False))
    assert await heard_stdin(node, 65_536, 105_536) == data[65_536:105_536]
    await node.hang_up()
    node = await server.node(up)
    node.say(
        wire.Attached(machine.id, up.boot_id, [start.execution]),
        wire.StdinWritten(machine.id, start.execution, 100_000, closed=False),
    )
    assert await heard_stdin(node, 100_000, len(data), eof=True) == data[100_000:]


async def heard_stdin(node: ScriptedNode, start: int, end: int, *, eof: bool = False) -> bytes:
    """What arrives from `start` up to exactly `end`, without gaps, with or without the end of file."""
    data = b""
    while start + len(data) < end:
        piece = await node.hear(wire.WriteStdin)
        assert piece.offset == start + len(data)
        data += piece.data
    assert (start + len(data), piece.eof) == (end, eof)
    return data


@pytest.mark.parametrize("turns", range(8))
async def test_what_is_typed_stays_whole_when_another_typist_is_lost_in_the_midst(server: Server, turns: int) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    order = TerminalOrder(width=80, height=24, command=("bash",), cwd="/root", env={})
    terminal = await server.engine.terminals.create(server.caller, machine.id, order, None)
    start = await node.hear(wire.StartExecution)
    node.say(
        wire.ExecutionStarted(start.machine_id, start.execution, 1),
        wire.StdinWritten(start.machine_id, start.execution, 0, closed=False),
    )
    lost = asyncio.create_task(server.engine.terminals.type(terminal, b"A" * 40))
    for _ in range(turns):
        await others_run()
    typing = asyncio.create_task(server.engine.terminals.type(terminal, b"B" * 100))
    await others_run()
    lost.cancel()
    await typing
    heard = b""
    while heard.count(b"B") < 100:
        heard += (await node.hear(wire.WriteStdin)).data
    whole = {kind: struct.pack("<BI", 0, count) + kind * count for kind, count in ((b"A", 40), (b"B", 100))}
    assert heard in (whole[b"B"], whole[b"A"] + whole[b"B"], whole[b"B"] + whole[b"A"])
