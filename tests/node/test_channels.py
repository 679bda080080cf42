"""Channels from an engine through a real node into a real guest, and the guest's own tools."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest_asyncio
from tests.engine.scripted_node import MovedClock, Server, phase, serving
from tests.guest.guest_process import GUEST
from tests.wait import wait_until_async

from dormice.domain.execution import ErrorCode, ExecutionState, Stream
from dormice.domain.machine import Machine, Phase
from dormice.engine.channel import Channel, ChannelOrder
from dormice.engine.orders import ExecutionOrder, MachineOrder
from dormice.node.node import Node, NodeIdentity
from dormice.node.process import ProcessRuntime

SECONDS = 20.0


@dataclass
class World:
    """One machine of the `process` driver, behind a real node."""

    server: Server
    node: Node
    machine: Machine

    async def open(self, *argv: str, tool: bool = False) -> Channel:
        order = ChannelOrder(argv=argv, tool=tool, cwd="/", env={"TERM": "dumb", "LANG": "C.UTF-8"})
        return await self.server.engine.channels.open(self.server.caller, self.machine.id, order)


@pytest_asyncio.fixture(name="world")
async def _world() -> AsyncIterator[World]:
    with TemporaryDirectory(prefix="dormice-") as place:  # the name of a socket must not be long
        async with _in(Path(place)) as world:
            yield world


@asynccontextmanager
async def _in(place: Path) -> AsyncIterator[World]:
    runtime = ProcessRuntime(data_dir=place / "node", run_dir=place / "run", guest=GUEST)
    await runtime.open()
    async with serving(place, MovedClock()) as server, asyncio.TaskGroup() as group:
        identity = NodeIdentity("node", 2.0, 4_096, 100)
        node = Node(
            runtime=runtime,
            identity=identity,
            server_socket=str(server.socket),
            images=lambda: ["default"],
            group=group,
        )
        connected = group.create_task(node.serve())
        made = await server.engine.machines.create(server.caller, MachineOrder(), None, wait_ms=20_000)
        assert made.phase is Phase.RUNNING
        yield World(server, node, made)
        connected.cancel()
        node.close()
    await runtime.destroy(made.id)
    await runtime.close()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def _status(pid: int) -> list[str]:
    """Return the fields of a process's status that follow its name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


async def _all(channel: Channel, stream: Stream = Stream.STDOUT) -> bytes:
    parts = []
    while data := await asyncio.wait_for(channel.read(stream), SECONDS):
        parts.append(data)
    return b"".join(parts)


async def _until(channel: Channel, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        data = await asyncio.wait_for(channel.read(), SECONDS)
        assert data, seen
        seen += data
    return seen


async def test_a_channel_carries_bytes_both_ways_and_tells_how_it_ended(world: World) -> None:
    channel = await world.open("sh", "-c", "cat; echo done >&2; exit 3")
    sent = os.urandom(3_000_000)

    async def send() -> None:
        await channel.write(sent)
        channel.write_eof()

    _, got, said = await asyncio.gather(send(), _all(channel), _all(channel, Stream.STDERR))
    end = await channel.wait()
    assert hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()
    assert (said, end.exit_code, end.error_code) == (b"done\n", 3, ErrorCode.NONZERO_EXIT)
    channel.close()


async def test_what_nobody_reads_stops_the_process_and_nothing_is_lost(world: World) -> None:
    channel = await world.open("sh", "-c", "head -c 2000000 /dev/zero; echo end >&2; exec cat")
    assert await asyncio.wait_for(channel.read(), SECONDS)
    channel.write_eof()
    rest = await _all(channel)
    assert rest.count(0) == len(rest) > 1_000_000
    assert (await channel.wait()).exit_code == 0


async def test_closing_a_channel_kills_its_whole_tree(world: World) -> None:
    channel = await world.open("sh", "-c", "setsid sleep 600 & echo $!; trap '' TERM; wait")
    child = int(await _until(channel, b"\n"))
    channel.close()
    end = await asyncio.wait_for(channel.wait(), SECONDS)
    assert end.signal == 9
    assert not _alive(child)
    assert channel.id not in world.server.engine.channels.of(world.machine.id)


async def test_a_program_that_is_not_there_is_told(world: World) -> None:
    channel = await world.open("no-such-program")
    end = await asyncio.wait_for(channel.wait(), SECONDS)
    assert (end.exit_code, end.error_code) == (None, ErrorCode.COMMAND_NOT_FOUND)


async def test_an_execution_that_is_too_long_for_its_guest_fails_and_disturbs_nothing_else(world: World) -> None:
    server, machine = world.server, world.machine
    beside = await world.open("cat")
    env = {f"V{number}": "x" * 100_000 for number in range(10)}
    order = ExecutionOrder(command=("true", *["x" * 200] * 6_000), cwd="/", env=env)
    made = await server.engine.executions.create(server.caller, machine.id, order, None)
    done = await server.engine.executions.get(server.caller, machine.id, made.id, wait_ms=10_000)
    assert (done.state, done.error_code) == (ExecutionState.FAILED, ErrorCode.SPAWN_FAILED)
    assert "too long" in (done.error_message or "")
    await beside.write(b"on")
    assert await _until(beside, b"on") == b"on"


async def test_a_sleeping_machine_is_woken_and_held_awake_by_a_channel(world: World) -> None:
    machines = world.server.engine.machines
    await machines.sleep(world.server.caller, world.machine.id, revision=None, idempotency=None, wait_ms=20_000)
    await phase(world.server, world.machine.id, Phase.SLEEPING)
    opened = await asyncio.gather(*(world.open("echo", "awake") for _ in range(5)))
    assert [await _all(channel) for channel in opened] == [b"awake\n"] * 5


async def test_the_sleep_of_a_machine_ends_its_channels(world: World) -> None:
    channel = await world.open("sleep", "600")
    await world.server.engine.machines.sleep(
        world.server.caller, world.machine.id, revision=None, idempotency=None, wait_ms=20_000
    )
    end = await asyncio.wait_for(channel.wait(), SECONDS)
    assert end.error_code in (ErrorCode.EXECUTION_RUNNER_INTERRUPTED, ErrorCode.MACHINE_LOST)


async def test_a_terminal_runs_its_command_on_a_tty_of_the_wanted_size(world: World) -> None:
    channel = await world.open(
        "tty", "100", "40", "sh", "-c", "tty; stty size; read line; stty size; exit 7", tool=True
    )
    seen = await _until(channel, b"40 100")
    assert seen.startswith(b"/dev/pts/")
    await channel.write(b"\x01\x04\0\0\0" + (132).to_bytes(2, "little") + (50).to_bytes(2, "little"))
    await channel.write(b"\0\x03\0\0\0hi\n")
    rest = await _all(channel)
    assert b"50 132" in rest
    assert (await channel.wait()).exit_code == 7


async def test_a_terminal_that_goes_hangs_up_on_its_shell(world: World) -> None:
    channel = await world.open(
        "tty", "80", "24", "sh", "-c", "trap 'exit' HUP; echo pid $$; while :; do read x; done", tool=True
    )
    await _until(channel, b"pid ")
    channel.close()
    assert (await asyncio.wait_for(channel.wait(), SECONDS)).signal == 9


async def test_a_shell_that_is_killed_ends_the_terminal_likewise(world: World) -> None:
    channel = await world.open("tty", "80", "24", "sh", "-c", "kill -KILL $$", tool=True)
    await _all(channel)
    assert (await channel.wait()).signal == 9


async def test_a_shell_that_was_stopped_and_goes_on_costs_nothing(world: World) -> None:
    channel = await world.open("tty", "80", "24", "sh", "-c", "echo $PPID $$; exec cat", tool=True)
    tool, shell = map(int, (await _until(channel, b"\n")).split())

    rest, last = 0, ""

    async def stopped() -> bool:
        return _status(shell)[0] == "T"

    async def at_rest() -> bool:
        """Whether the tool has used no time for a while."""
        nonlocal rest, last
        used = " ".join(_status(tool)[11:13])
        rest, last = rest + 1 if used == last else 0, used
        return rest == 30

    os.kill(shell, signal.SIGSTOP)
    await wait_until_async(stopped, SECONDS, "the shell is stopped")
    os.kill(shell, signal.SIGCONT)
    await wait_until_async(at_rest, SECONDS, "the tool waits")
    await channel.write(b"\0\x03\0\0\0on\n")
    await _until(channel, b"on\r\non")
    channel.close()


async def test_a_program_that_leaves_its_terminal_and_comes_back_is_shown_and_heard(world: World) -> None:
    away = "exec 0</dev/null 1>/dev/null 2>&1; sleep 0.5; exec 0</dev/tty 1>/dev/tty; echo back; exec cat"
    channel = await world.open("tty", "80", "24", "sh", "-c", f"echo ready; {away}", tool=True)
    await _until(channel, b"ready")
    await channel.write(b"\0\x05\0\0\0typed")  # while nobody has it open
    await _until(channel, b"back")
    await channel.write(b"\0\x01\0\0\0\n")
    await _until(channel, b"typed\r\n")
    channel.close()


async def test_what_is_no_message_to_a_terminal_ends_it(world: World) -> None:
    channel = await world.open("tty", "80", "24", "cat", tool=True)
    await channel.write(b"\x07\x00\x00\x00\x00")
    assert b"no message" in await _all(channel, Stream.STDERR)
    assert (await channel.wait()).exit_code == 76


async def test_dial_carries_a_connection_both_ways_with_its_half_close(world: World) -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    listener = await asyncio.start_server(upper, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    channel = await world.open("dial", str(port), tool=True)
    sent = b"x" * 1_000_000

    async def send() -> None:
        await channel.write(sent)
        channel.write_eof()

    _, got = await asyncio.gather(send(), _all(channel))
    assert got == b"+" + sent.upper()
    assert (await channel.wait()).exit_code == 0
    listener.close()


async def test_dial_tells_when_nobody_listens(world: World) -> None:
    channel = await world.open("dial", "1", tool=True)
    assert await _all(channel) == b""
    assert b"refused" in await _all(channel, Stream.STDERR)
    assert (await channel.wait()).exit_code == 69
