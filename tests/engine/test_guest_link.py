"""The node's line to a guest that says what a test wants."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from dormice.domain.execution import Stream
from dormice.node import guest_link
from dormice.node.guest_link import GuestLink, attach
from dormice.node.runtime import Running
from dormice.protocol import guest
from dormice.protocol import node as wire
from tests.wait import wait_until_async

BOOT = UUID(int=7, version=4)
X = bytes(range(16))
PATIENCE_SECONDS = 5.0


class Listener:
    """Hears what the node would pass on."""

    def __init__(self) -> None:
        self.said: list[wire.FromNode] = []
        self.lies: list[str] = []

    def guest_welcomed(self, link: GuestLink) -> None:
        pass

    def guest_said(self, message: wire.FromNode) -> None:
        self.said.append(message)

    def guest_heard(self) -> None:
        pass

    def guest_lied(self, link: GuestLink, violation: str) -> None:
        self.lies.append(violation)

    def guest_hung_up(self, link: GuestLink) -> None:
        pass


class Guest:
    """Listens as process 1 does."""

    def __init__(self) -> None:
        self.called: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self._decoder = guest.NodeDecoder()
        self._heard: list[guest.NodeFrame] = []

    async def answer(self) -> None:
        self._reader, self._writer = await self.called.get()

    def say(self, *frames: guest.GuestFrame) -> None:
        self._writer.write(b"".join(map(guest.encode, frames)))

    async def hear(self) -> guest.NodeFrame:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self._heard:
                self._heard += self._decoder.feed(await self._reader.read(65_536))
        return self._heard.pop(0)

    async def ends(self) -> None:
        """Wait until the node has hung up."""
        with suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await self._reader.read(65_536):
                    pass
        self._writer.close()


def exited(kept: int = 3) -> guest.Exited:
    return guest.Exited(
        execution=X,
        how=guest.How.SIGNALLED,
        code=9,
        errno=0,
        started_at=1,
        ended_at=2,
        stdout_total=kept,
        stderr_total=0,
        stdout_kept=kept,
        stderr_kept=0,
        flags=guest.End(0),
    )


async def called(process: Guest, listener: Listener, path: Path) -> tuple[asyncio.Server, asyncio.Future[GuestLink]]:
    """Have a guest listen, called and picked up; return what closes the place, and the call."""
    server = await asyncio.start_unix_server(lambda *pair: process.called.put_nowait(pair), path)
    calling = asyncio.ensure_future(attach(Running("dm-1", BOOT, path, -1), 1, listener, lambda: 0))
    await process.answer()
    return server, calling


async def test_a_guest_is_told_to_forget_only_what_has_ended(tmp_path: Path) -> None:
    process, listener = Guest(), Listener()
    server, calling = await called(process, listener, tmp_path / "guest.sock")
    assert isinstance(await process.hear(), guest.Hello)
    process.say(guest.Welcome(BOOT.bytes, (X,)))
    link = await calling
    link.forget(X)
    process.say(guest.Output(X, Stream.STDOUT, 0, b"abc"), exited())
    assert await process.hear() == guest.Ack(X, Stream.STDOUT, 3)
    assert await process.hear() == guest.Forget(X)
    assert [type(message) for message in listener.said] == [wire.Attached]
    link.close()
    await process.ends()
    server.close()


async def test_what_cannot_be_sent_to_a_guest_ends_its_execution_and_nothing_else(tmp_path: Path) -> None:
    process, listener = Guest(), Listener()
    server, calling = await called(process, listener, tmp_path / "guest.sock")
    assert isinstance(await process.hear(), guest.Hello)
    process.say(guest.Welcome(BOOT.bytes, ()))
    link = await calling
    for argv, env in ((["a\0b"], {}), (["x"], {"A": "x" * guest.START_BYTES}), (["x"], {"A=B": ""}), ([], {})):
        link.do(wire.StartExecution("dm-1", BOOT.bytes, X, 0, 1, 1, "/", argv, env, stdin_open=True))
        told = listener.said.pop()
        assert isinstance(told, wire.Exited)
        assert (told.execution, told.how) == (X, guest.How.SPAWN_FAILED)
    link.do(wire.WriteStdin("dm-1", X, 0, b"x" * (guest.STDIN_FRAME_BYTES + 1), eof=False))
    assert await process.hear() == guest.Cancel(X, 0)
    link.do(wire.AckOutput("dm-1", X, 1, 0))
    link.do(wire.Forget("dm-1", X))
    assert await process.hear() == guest.Forget(X)
    link.close()
    await process.ends()
    server.close()


@pytest.mark.parametrize("further", [b"", b"more"])
async def test_output_goes_on_where_the_server_had_come_to_before(further: bytes, tmp_path: Path) -> None:
    """It had more of a stream than the new connection has brought so far; the guest then skips what lies between."""
    process, listener = Guest(), Listener()
    server, calling = await called(process, listener, tmp_path / "guest.sock")
    assert isinstance(await process.hear(), guest.Hello)
    process.say(guest.Welcome(BOOT.bytes, (X,)), guest.Output(X, Stream.STDOUT, 0, b"abc"))
    link = await calling
    link.acknowledge(wire.AckOutput("dm-1", X, 1, 100))
    assert await process.hear() == guest.Ack(X, Stream.STDOUT, 100)
    if further:
        process.say(guest.Output(X, Stream.STDOUT, 100, further))
    process.say(exited(kept=100 + len(further)))

    async def heard() -> bool:
        return bool(listener.lies) or isinstance(listener.said[-1], wire.Exited)

    await wait_until_async(heard, PATIENCE_SECONDS, "the end is heard")
    link.close()
    assert listener.lies == []
    await process.ends()
    server.close()


async def test_output_skips_nothing_else(tmp_path: Path) -> None:
    process, listener = Guest(), Listener()
    server, calling = await called(process, listener, tmp_path / "guest.sock")
    process.say(guest.Welcome(BOOT.bytes, (X,)), guest.Output(X, Stream.STDOUT, 0, b"abc"))
    link = await calling
    link.acknowledge(wire.AckOutput("dm-1", X, 1, 100))
    process.say(guest.Output(X, Stream.STDOUT, 99, b"x"))
    await process.ends()
    assert listener.lies == ["output at offset 99, 3 was next"]
    server.close()


async def test_a_guest_that_answers_too_late_has_not_broken_the_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_link, "HANDSHAKE_SECONDS", 0.05)
    process, listener = Guest(), Listener()
    path = tmp_path / "guest.sock"
    server = await asyncio.start_unix_server(lambda *pair: process.called.put_nowait(pair), path)
    with pytest.raises(TimeoutError):
        await attach(Running("dm-1", BOOT, path, -1), 1, listener, lambda: 0)
    await process.answer()
    await process.ends()  # so that a late WELCOME reaches nobody
    assert listener.lies == []
    server.close()
