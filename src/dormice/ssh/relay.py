"""Carrying bytes between a client and a channel, at the pace of the slower one.

What a client has sent and nobody has read is at most two windows. (asyncssh's own streams give a client a new window while the last one is
still in their buffers, so that those grow without bound when a client is faster than its machine.)
"""

from __future__ import annotations

import asyncio

import asyncssh

from dormice.domain.execution import Stream
from dormice.engine.channel import Channel
from dormice.engine.ssh_traffic import SshTraffic
from dormice.ssh.connection import Connection

WINDOW_BYTES = 1024 * 1024
"""What a client may send ahead on one channel."""
PIECE_BYTES = 65_536
_ENOUGH_BYTES = 262_144
LOOK_SECONDS = 1.0
"""How often is looked whether a client that nobody reads has closed its channel."""

Opened = asyncssh.SSHServerChannel[bytes] | asyncssh.SSHTCPChannel[bytes]


class ClientEnd:
    """The client's end of one channel of its connection: mixed into what asyncssh calls a session."""

    def __init__(self, traffic: SshTraffic) -> None:
        self._traffic = traffic
        self._channel: Opened | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._ended = self._paused = self._resuming = False
        self._looking: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.gone = asyncio.Event()

    @property
    def channel(self) -> Opened:
        """What asyncssh calls a channel. Raises RuntimeError before it is open."""
        if self._channel is None:
            raise RuntimeError("not open yet")
        return self._channel

    async def read(self) -> bytes:
        """Return what the client has sent next; empty at its end, or when the client is gone."""
        while not self._pieces and not self._ended:
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if self._paused and not self.gone.is_set():
            self._resume()
            self._pause()
        return data

    async def write(self, data: bytes, datatype: int | None = None) -> bool:
        """Send bytes, and wait until there is room for more. False: the client is gone."""
        connection = self.channel.get_connection()
        for start in range(0, len(data), PIECE_BYTES):
            if self.gone.is_set() or self.channel.is_closing():
                return False
            piece = data[start : start + PIECE_BYTES]
            self.channel.write(piece, datatype)
            self._traffic.sent_bytes += len(piece)
            await self._room.wait()
            if isinstance(connection, Connection):
                await connection.room()
        return not self.gone.is_set()

    async def carry_out(self, process: Channel, stream: Stream, datatype: int | None = None) -> None:
        """Send what the process writes, up to its end. Ends early where nobody takes it any more."""
        while data := await process.read(stream):
            if not await self.write(data, datatype):
                return

    async def leave(self, process: Channel) -> None:
        """Kill the process once the client is gone."""
        await self.gone.wait()
        process.close()

    def _pause(self) -> None:
        if self._size >= _ENOUGH_BYTES and not self._paused and not self._resuming and not self.gone.is_set():
            self._paused = True
            self.channel.pause_reading()
            self._look_later()

    def _resume(self) -> None:
        """Take in all that has waited at once, or the client would be given room for more beside it."""
        self._paused, self._resuming = False, True
        self.channel.resume_reading()
        self._resuming = False

    def _look_later(self) -> None:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Have asyncssh tell that the client has closed its channel, which it does behind all that waits to be read."""
        self._looking = None
        if self._paused and not self.gone.is_set():
            if self.channel.is_closing():
                self._resume()
            else:
                self._look_later()

    # What asyncssh tells

    def connection_made(self, chan: Opened) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:  # noqa: ARG002
        self._pieces.append(data)
        self._size += len(data)
        self._traffic.received_bytes += len(data)
        self._news.set()
        self._pause()

    def eof_received(self) -> bool:
        """The other half stays open."""
        self._ended = True
        self._news.set()
        return True

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._ended = True
        self.gone.set()
        self._news.set()
        self._room.set()
