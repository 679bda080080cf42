"""Channels when frames, connections and machines get lost between any two steps."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from dormice.domain.errors import Conflict, Invalid, NotFound, RateLimited
from dormice.domain.execution import ErrorCode, Stream
from dormice.domain.files import FileEntry
from dormice.domain.ids import execution_bytes
from dormice.domain.machine import Machine
from dormice.engine.channel import Channel, ChannelEnd, ChannelOrder
from dormice.engine.files import _many
from dormice.protocol import node as wire
from tests.engine.scripted_node import PATIENCE_SECONDS, MovedClock, ScriptedNode, Server, asleep, ended
from tests.wait import others_run


async def _open(server: Server, machine: Machine, *argv: str) -> Channel:
    return await server.engine.channels.open(server.caller, machine.id, ChannelOrder(argv=argv or ("cat",)))


def _written(start: wire.StartExecution, written: int, *, closed: bool = False) -> wire.StdinWritten:
    return wire.StdinWritten(start.machine_id, start.execution, written, closed)


async def _again(server: Server, node: ScriptedNode, up: wire.StartMachine, *known: bytes) -> ScriptedNode:
    await node.hang_up()
    node = await server.node(up)
    node.attach(up, *known)
    return node


async def test_a_start_frame_that_was_lost_is_sent_again_with_what_was_written(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    channel = await _open(server, machine)
    await channel.write(b"abc")
    node = await _again(server, node, up)
    start = await node.hear(wire.StartExecution)
    assert (start.boot_id, start.argv) == (up.boot_id, ["cat"])
    assert (await node.hear(wire.WriteStdin)).data == b"abc"


async def test_what_was_written_before_the_connection_was_lost_is_sent_again_from_where_the_guest_is(
    server: Server,
) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    channel = await _open(server, machine)
    start = await node.hear(wire.StartExecution)
    node.say(wire.ExecutionStarted(start.machine_id, start.execution, 1))
    await channel.write(b"abcdef")
    channel.write_eof()
    await node.hear(wire.WriteStdin)
    node = await _again(server, node, up, start.execution)
    await node.hears_nothing_of(wire.WriteStdin)  # before the guest has said where it goes on
    node.say(_written(start, 4))
    again = await node.hear(wire.WriteStdin)
    assert (again.offset, again.data, again.eof) == (4, b"ef", True)
    await node.hears_nothing_of(wire.StartExecution)


async def test_output_that_is_sent_again_is_read_once(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    channel = await _open(server, machine)
    start = await node.hear(wire.StartExecution)
    node.say(wire.Output(start.machine_id, start.execution, 1, 0, b"abc"))
    assert await channel.read() == b"abc"
    assert (await node.hear(wire.AckOutput)).offset == 3
    node = await _again(server, node, up, start.execution)
    assert (await node.hear(wire.AckOutput)).offset == 3
    node.say(wire.Output(start.machine_id, start.execution, 1, 0, b"abcdef"))
    node.say(ended(start, 0, 6))
    assert await channel.read() == b"def"
    assert await channel.read() == b""
    assert (await channel.wait()).exit_code == 0
    assert (await node.hear(wire.Forget)).execution == start.execution


async def test_a_channel_that_its_guest_no_longer_knows_is_lost(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    channel = await _open(server, machine)
    start = await node.hear(wire.StartExecution)
    node.say(wire.ExecutionStarted(start.machine_id, start.execution, 1), _written(start, 0))
    node.say(wire.Output(start.machine_id, start.execution, 2, 0, b"!"))
    assert await channel.read(Stream.STDERR) == b"!"
    await _again(server, node, up)
    assert (await channel.wait()).error_code is ErrorCode.MACHINE_LOST


async def test_a_channel_that_was_closed_while_the_node_was_away_is_killed_when_it_is_back(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    channel = await _open(server, machine)
    start = await node.hear(wire.StartExecution)
    node.say(_written(start, 0))
    await node.hang_up()
    await server.without_node()
    channel.close()
    node = await server.node(up)
    node.attach(up, start.execution)
    assert (await node.hear(wire.CancelExecution)).execution == start.execution


async def test_a_channel_that_was_closed_before_its_guest_heard_of_it_is_forgotten(
    server: Server, clock: MovedClock
) -> None:
    node = await server.node()
    machine, up = await server.machine(node, autosleep_seconds=10)
    channel = await _open(server, machine)
    channel.close()
    node = await _again(server, node, up)
    assert (await node.hear(wire.CancelExecution)).execution == execution_bytes(channel.id)
    assert channel.ended
    await node.hears_nothing_of(wire.StartExecution)
    clock.forward(11)
    await node.hear(wire.StopMachine)


async def test_who_reads_and_writes_is_let_go_when_the_channel_is_closed_while_the_node_is_away(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    channel = await _open(server, machine)
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        reading = group.create_task(channel.read())
        group.create_task(channel.write(b"x" * 200_000))
        await node.hang_up()
        await server.without_node()
        channel.close()
    assert reading.result() == b""


@pytest.mark.parametrize(
    "order",
    [
        ChannelOrder(argv=("sh", "-c", "a\0b")),
        ChannelOrder(argv=("sh", "\udc80")),
        ChannelOrder(argv=("sh",), env={f"V{number}": "x" * 100_000 for number in range(11)}),
        ChannelOrder(argv=("sh",), env={"A=B": "c"}),
        ChannelOrder(argv=()),
    ],
)
async def test_what_cannot_be_sent_to_a_guest_is_not_begun(server: Server, order: ChannelOrder) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    with pytest.raises(Invalid):
        await server.engine.channels.open(server.caller, machine.id, order)
    assert server.engine.channels.of(machine.id) == []
    await node.hears_nothing_of(wire.StartExecution)


async def test_a_channel_of_a_server_that_died_is_killed_by_the_next(server: Server) -> None:
    node = await server.node()
    _, up = await server.machine(node)
    node = await _again(server, node, up, b"\1" * 16)
    assert (await node.hear(wire.CancelExecution)).execution == b"\1" * 16
    assert (await node.hear(wire.Forget)).execution == b"\1" * 16


async def test_the_end_of_the_machine_ends_what_is_open_in_it(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    channel = await _open(server, machine)
    await node.hear(wire.StartExecution)
    node.say(wire.MachineEnded(machine.id, up.boot_id, clean=False, reason="process 1 has died"))
    assert await channel.read() == b""
    assert (await channel.wait()).error_code is ErrorCode.MACHINE_LOST


async def test_a_machine_with_a_channel_does_not_fall_asleep(server: Server, clock: MovedClock) -> None:
    node = await server.node()
    machine, _ = await server.machine(node, autosleep_seconds=10)
    channel = await _open(server, machine)
    start = await node.hear(wire.StartExecution)
    clock.forward(100)
    await node.hears_nothing_of(wire.StopMachine)
    node.say(ended(start))
    await channel.wait()
    clock.forward(11)
    await node.hear(wire.StopMachine)


async def test_opening_wakes_a_sleeping_machine_once(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    await asleep(server, node, machine, up)
    opening = asyncio.gather(*(_open(server, machine) for _ in range(20)))
    await node.start_machine()
    assert len(await opening) == 20
    await node.hears_nothing_of(wire.StartMachine)


async def test_what_cannot_be_opened_is_refused(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    with pytest.raises(NotFound):
        await server.engine.channels.open(server.caller, "dm-nowhere", ChannelOrder(argv=("true",)))
    for _ in range(256):
        await _open(server, machine)
    with pytest.raises(RateLimited, match="channels_per_machine"):
        await _open(server, machine)
    await server.engine.machines.destroy(server.caller, machine.id, revision=None, idempotency=None)
    with pytest.raises(Conflict, match="destroying"):
        await _open(server, machine)


async def test_who_does_not_read_is_not_acknowledged(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    channel = await _open(server, machine)
    start = await node.hear(wire.StartExecution)
    node.say(wire.Output(start.machine_id, start.execution, 1, 0, b"a" * 1000))
    await node.hears_nothing_of(wire.AckOutput)
    assert len(await channel.read()) == 1000
    assert (await node.hear(wire.AckOutput)).offset == 1000


_LINE = b"f 644 0 0 3 1000 name%d \n"


async def _listed(server: Server, node: ScriptedNode, machine: Machine, said: bytes, *, limit: int) -> list[FileEntry]:
    """List a directory, with a machine that says this."""
    listing = asyncio.ensure_future(
        server.engine.files.page(server.caller, machine.id, "/srv", after=None, limit=limit)
    )
    start = await node.hear(wire.StartExecution)
    node.say(wire.ExecutionStarted(start.machine_id, start.execution, 1))
    for offset in range(0, len(said), 60_000):
        node.say(wire.Output(start.machine_id, start.execution, 1, offset, said[offset : offset + 60_000]))
    node.say(ended(start, 0, len(said)))
    return await listing


async def test_a_machine_that_says_more_than_it_was_asked_for_is_not_listened_to(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    lines = [_LINE % number for number in range(4)]
    assert [one.name for one in await _listed(server, node, machine, b"".join(lines[:3]), limit=3)] == [
        b"name0",
        b"name1",
        b"name2",
    ]
    endless = b"f 644 0 0 3 1000 " + b"x" * 30_000 + b" \n"
    for said in (b"".join(lines), endless, lines[0] + b"f 644 0 0"):
        with pytest.raises(Conflict, match="interferes"):
            await _listed(server, node, machine, said, limit=3)


class _Said:
    """A channel that has said all that it will."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [*pieces, b""]

    async def read(self) -> bytes:
        return self._pieces.pop(0)

    async def wait(self) -> ChannelEnd:
        return ChannelEnd(exit_code=0)


async def test_others_go_on_while_a_long_answer_is_parsed() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await others_run()

    counting = asyncio.ensure_future(count())
    said = b"".join(_LINE % number for number in range(1_000))
    entries = await _many(cast("Channel", _Said(said[:1_000], said[1_000:])), "/srv", 1_000)
    counting.cancel()
    assert [one.name for one in entries] == [b"name%d" % number for number in range(1_000)]
    assert turns >= 1_000 // 20
