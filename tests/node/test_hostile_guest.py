"""A guest that lies is cut off by the node, and what it floods the node with does not reach the server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from dormice.domain.execution import Stream
from dormice.node.guest_link import IDLE_TALK, GuestLink, attach
from dormice.node.runtime import Running
from dormice.protocol import guest
from dormice.protocol import node as wire

BOOT, MINE, OTHER = uuid4(), uuid4().bytes, uuid4().bytes
EXITED = guest.Exited(
    execution=MINE, how=guest.How.EXITED, code=0, errno=0, started_at=1, ended_at=2,
    stdout_total=0, stderr_total=0, stdout_kept=0, stderr_kept=0, flags=guest.End(0),
)  # fmt: skip


@dataclass
class Heard:
    """What the node would do."""

    said: list[wire.FromNode] = field(default_factory=list)
    lie: str | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def guest_welcomed(self, link: GuestLink) -> None:
        del link

    def guest_said(self, message: wire.FromNode) -> None:
        self.said.append(message)

    def guest_heard(self) -> None:
        pass

    def guest_lied(self, link: GuestLink, violation: str) -> None:
        del link
        self.lie = violation
        self.over.set()

    def guest_hung_up(self, link: GuestLink) -> None:
        del link
        self.over.set()


@asynccontextmanager
async def scripted(directory: Path, *frames: guest.GuestFrame) -> AsyncIterator[tuple[Running, Heard]]:
    """A guest that says these frames once it was told to start something, then hangs up."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = guest.NodeDecoder()
        heard: list[guest.NodeFrame] = []
        with suppress(ConnectionError):
            writer.write(guest.encode(guest.Welcome(BOOT.bytes, ())))
            while not any(isinstance(frame, guest.Start) for frame in heard):
                heard += decoder.feed(await reader.read(65_536))
            for frame in frames:
                writer.write(guest.encode(frame))
                await writer.drain()
        writer.close()

    path = directory / "guest.sock"
    async with await asyncio.start_unix_server(play, path):
        pidfd = os.pidfd_open(os.getpid())
        try:
            yield Running("dm-x", BOOT, path, pidfd), Heard()
        finally:
            os.close(pidfd)


async def hear(directory: Path, *frames: guest.GuestFrame) -> Heard:
    async with scripted(directory, *frames) as (running, heard):
        link = await attach(running, 1, heard, lambda: 0)
        link.start(wire.StartExecution("dm-x", BOOT.bytes, MINE, 1000, 1000, 100, "/", ["true"], {}, stdin_open=True))
        link.write_stdin(wire.WriteStdin("dm-x", MINE, 0, b"abc", eof=False))
        await asyncio.wait_for(heard.over.wait(), 10)
        link.close()
    return heard


@pytest.mark.parametrize(
    "frames",
    [
        [guest.Started(OTHER, 1)],
        [guest.Started(MINE, 1), guest.Started(MINE, 1)],
        [EXITED, EXITED],
        [EXITED, guest.Started(MINE, 1)],
        [EXITED, guest.Output(MINE, Stream.STDOUT, 0, b"x")],
        [guest.Output(MINE, Stream.STDOUT, 1, b"x")],
        [guest.Output(OTHER, Stream.STDOUT, 0, b"x")],
        [guest.Output(MINE, Stream.STDOUT, at << 15, bytes(1 << 15)) for at in range(9)],
        [guest.StdinState(MINE, 0, closed=False), guest.StdinState(MINE, 4, closed=False)],
        [guest.StdinState(MINE, 3, closed=False), guest.StdinState(MINE, 2, closed=False)],
        [guest.StdinState(MINE, 3, closed=True), guest.StdinState(MINE, 3, closed=False)],
        [guest.Welcome(BOOT.bytes, ())],
        [guest.Stale(9)],
    ],
)
async def test_a_lie_ends_the_connection(tmp_path: Path, frames: list[guest.GuestFrame]) -> None:
    assert (await hear(tmp_path, *frames)).lie


@pytest.mark.parametrize(
    "frame",
    [guest.StdinState(MINE, 0, closed=False), guest.StdinState(OTHER, 7, closed=False), guest.Pong(1), guest.Stopped()],
)
async def test_a_flood_of_frames_that_say_nothing_new_ends_the_connection(
    tmp_path: Path, frame: guest.GuestFrame
) -> None:
    heard = await hear(tmp_path, *[frame] * (IDLE_TALK + 10))
    assert heard.lie == "too many frames that say nothing new"
    assert len(heard.said) <= 2  # that it is attached, and the first of them


async def test_what_a_guest_may_say_is_passed_on(tmp_path: Path) -> None:
    closing = [guest.StdinState(MINE, 3, closed=True)] * 2
    heard = await hear(tmp_path, guest.StdinState(MINE, 1, closed=False), guest.Started(MINE, 1), *closing, EXITED)
    assert heard.lie is None
    kinds = [type(message) for message in heard.said]
    assert kinds == [wire.Attached, wire.StdinWritten, wire.ExecutionStarted, wire.StdinWritten, wire.Exited]
