"""What a guest says goes to the server that its link was made for, and to none that comes later."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self
from uuid import uuid4

import pytest
import pytest_asyncio
from tests.guest.guest_process import GUEST
from tests.wait import wait_until_async

from dormice.node import guest_link
from dormice.node.node import Node, NodeIdentity
from dormice.node.process import ProcessRuntime
from dormice.protocol import node as wire
from dormice.protocol.framing import Framer, frame

MACHINE, BOOT, EXECUTION = f"dm-{uuid4()}", uuid4().bytes, uuid4().bytes
SECONDS = 20.0


class Server:
    """The server's end of one connection of the node at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._coming: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_unix_server(lambda *ends: self._coming.put_nowait(ends), self._path)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.hang_up()
        self._listener.close()
        await self._listener.wait_closed()

    async def joined(self) -> None:
        """Take the node's next connection, and hear its hello."""
        self._reader, self._writer = await asyncio.wait_for(self._coming.get(), SECONDS)
        self._framer, self._heard = Framer(), list[wire.FromNode]()
        assert isinstance(await self.said(), wire.NodeHello)

    async def said(self) -> wire.FromNode:
        """The next message."""
        while not self._heard:
            data = await asyncio.wait_for(self._reader.read(65_536), SECONDS)
            assert data, "the node has hung up"
            self._heard += map(wire.decode_from_node, self._framer.feed(data))
        return self._heard.pop(0)

    async def until(self, *kinds: type[wire.FromNode]) -> list[wire.FromNode]:
        """Everything up to the first message of some kinds."""
        heard = [await self.said()]
        while not isinstance(heard[-1], kinds):
            heard.append(await self.said())
        return heard

    def tell(self, *messages: wire.ToNode) -> None:
        self._writer.write(b"".join(frame(wire.encode(message)) for message in messages))

    async def hang_up(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@pytest.fixture(name="place")
def _place() -> Iterator[Path]:
    with TemporaryDirectory(prefix="dormice-") as place:  # the name of a socket must not be long
        yield Path(place)


@pytest_asyncio.fixture(name="runtime")
async def _runtime(place: Path) -> AsyncIterator[ProcessRuntime]:
    runtime = ProcessRuntime(data_dir=place / "data", run_dir=place / "run", guest=GUEST)
    assert await runtime.open() == []
    yield runtime
    await runtime.destroy(MACHINE)
    await runtime.close()


def _pid(pidfd: int) -> int:
    [line] = [line for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines() if line.startswith("Pid:")]
    return int(line.split()[1])


START = wire.StartExecution(
    MACHINE, BOOT, EXECUTION, 60_000, 65_536, 100, "/", ["/bin/sh", "-c", "echo out; read line"], {}, stdin_open=True
)


@asynccontextmanager
async def _serving(runtime: ProcessRuntime, place: Path) -> AsyncIterator[Server]:
    """A node with a machine, in which a command has written `out` and waits; its guest is stopped, and its server has hung up."""
    path = place / "node.sock"
    async with Server(path) as server, asyncio.TaskGroup() as group:
        identity = NodeIdentity("node", 1.0, 1024, 10)
        node = Node(runtime=runtime, identity=identity, server_socket=str(path), images=list, group=group)
        serving = group.create_task(node.serve())
        await server.joined()
        server.tell(wire.Welcome(wire.VERSION), wire.StartMachine(MACHINE, BOOT, 1.0, 64, 1, "default"))
        await server.until(wire.Attached)
        server.tell(START)
        await server.until(wire.Output)
        await _signal(runtime, signal.SIGSTOP)
        await server.hang_up()
        yield server
        serving.cancel()
        node.close()


async def _signal(runtime: ProcessRuntime, number: signal.Signals) -> None:
    """Send a signal to the guest."""
    [running] = await runtime.open()
    os.kill(_pid(running.pidfd), number)


def _told(heard: list[wire.FromNode]) -> list[type[wire.FromNode]]:
    """What of it is about the machine, but for its input and use."""
    others = wire.NodeImages | wire.StdinWritten | wire.MachineUsed
    return [type(message) for message in heard if not isinstance(message, others)]


async def test_a_link_that_was_being_made_for_a_server_that_went_is_not_used_for_the_next(
    runtime: ProcessRuntime, place: Path
) -> None:
    async with _serving(runtime, place) as server:
        await server.joined()
        server.tell(wire.Welcome(wire.VERSION))  # the node calls the guest, which does not answer
        await server.until(wire.NodeImages)
        await server.hang_up()
        await server.joined()
        await _signal(runtime, signal.SIGCONT)  # now it does
        server.tell(wire.Welcome(wire.VERSION))
        heard = await server.until(wire.Output)
        server.tell(wire.WriteStdin(MACHINE, EXECUTION, 0, b"\n", eof=True))
        heard += await server.until(wire.Exited)
        assert _told(heard) == [wire.Attached, wire.ExecutionStarted, wire.Output, wire.Exited]


async def test_what_a_server_asks_for_again_comes_again(runtime: ProcessRuntime, place: Path) -> None:
    async with _serving(runtime, place) as server:
        await server.joined()
        await _signal(runtime, signal.SIGCONT)
        server.tell(wire.Welcome(wire.VERSION))
        await server.until(wire.Output)
        server.tell(wire.WriteStdin(MACHINE, EXECUTION, 0, b"\n", eof=True))
        end = (await server.until(wire.Exited))[-1]
        assert isinstance(end, wire.Exited)
        assert (end.stdout_total, end.stdout_kept, end.stderr_kept) == (4, 4, 0)
        server.tell(wire.SayAgain(MACHINE))
        again = await server.until(wire.Exited)
        assert _told(again) == [wire.Attached, wire.ExecutionStarted, wire.Output, wire.Exited]
        assert again[-1] == end


@pytest.mark.parametrize("asked_again", [True, False])
async def test_a_stop_that_a_server_asked_for_that_went_takes_nothing_from_the_next(
    runtime: ProcessRuntime,
    place: Path,
    asked_again: bool,  # noqa: FBT001
) -> None:
    stop = wire.StopMachine(MACHINE, BOOT, 500)
    async with _serving(runtime, place) as server:
        await server.joined()
        server.tell(wire.Welcome(wire.VERSION), stop)  # the guest is called first, and does not answer
        await server.until(wire.NodeImages)
        await server.hang_up()
        await server.joined()
        server.tell(wire.Welcome(wire.VERSION), *([stop] if asked_again else []))
        await server.until(wire.NodeImages)
        await _signal(runtime, signal.SIGCONT)
        heard = await server.until(wire.Exited, wire.MachineEnded)
        server.tell(wire.Forget(MACHINE, EXECUTION))
        if not isinstance(heard[-1], wire.MachineEnded):
            heard += await server.until(wire.MachineEnded)
        assert heard[-1] == wire.MachineEnded(MACHINE, BOOT, clean=True, reason="")
        assert _told(heard)[-4:] == [wire.ExecutionStarted, wire.Output, wire.Exited, wire.MachineEnded]
        assert [message.last for message in heard if isinstance(message, wire.MachineUsed)][-1]


async def test_a_server_that_goes_while_a_stop_calls_the_guest_leaves_it_to_the_next(
    runtime: ProcessRuntime, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def has_called() -> bool:
        return "attach 3 failed" in caplog.text

    stop = wire.StopMachine(MACHINE, BOOT, 500)
    async with _serving(runtime, place) as server:
        monkeypatch.setattr(guest_link, "HANDSHAKE_SECONDS", 0.1)
        await server.joined()
        server.tell(wire.Welcome(wire.VERSION), stop)
        await server.until(wire.NodeImages)
        await server.hang_up()
        await server.joined()
        await wait_until_async(has_called, SECONDS, "the stop has called the guest for the third server")
        monkeypatch.setattr(guest_link, "HANDSHAKE_SECONDS", SECONDS)
        await server.hang_up()
        await server.joined()
        await _signal(runtime, signal.SIGCONT)
        server.tell(wire.Welcome(wire.VERSION), stop)
        heard = await server.until(wire.Exited, wire.MachineEnded)
        server.tell(wire.Forget(MACHINE, EXECUTION))
        assert _told(heard)[-3:] == [wire.ExecutionStarted, wire.Output, wire.Exited]
        assert (await server.until(wire.MachineEnded))[-1] == wire.MachineEnded(MACHINE, BOOT, clean=True, reason="")


async def test_the_last_use_of_a_machine_that_died_unheard_is_told_to_the_next_server(
    runtime: ProcessRuntime, place: Path
) -> None:
    async with _serving(runtime, place) as server:
        await server.joined()
        server.tell(wire.Welcome(wire.VERSION))
        await server.until(wire.NodeImages)
        await server.hang_up()
        await _signal(runtime, signal.SIGKILL)
        for _ in range(2):  # the first does not come to a welcome
            await server.joined()
            used = await server.said()  # before the welcome: the server could start the machine anew
            assert isinstance(used, wire.MachineUsed)
            assert (used.machine_id, used.boot_id, used.last) == (MACHINE, BOOT, True)
            assert 0 < used.awake_us < 60_000_000
            await server.hang_up()
        await server.joined()
        server.tell(wire.Welcome(wire.VERSION))
        await server.until(wire.NodeImages)
        await server.hang_up()
        await server.joined()
        server.tell(wire.Welcome(wire.VERSION))
        assert await server.said() == wire.NodeImages([]), "once it was taken it is not told again"
