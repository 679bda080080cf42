"""A connection that keeps little of what its client does not read.

asyncssh minds the windows of channels, which are as large as a client makes them, and not the socket: what is sent to a client that has
stopped reading would pile up here.
"""

from __future__ import annotations

import asyncio

import asyncssh


class Connection(asyncssh.SSHServerConnection):
    """One that says when there is room, and that hears nothing more of a client that does not read its answers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHServerConnectionOptions) -> None:
        super().__init__(loop, options)
        self._room = asyncio.Event()
        self._room.set()

    async def room(self) -> None:
        """Wait until the socket takes more, or the connection is gone."""
        await self._room.wait()

    def pause_writing(self) -> None:
        """Be told that the socket takes no more."""
        self._room.clear()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Be told that it does again."""
        self._room.set()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None = None) -> None:
        """Let everybody go."""
        self._room.set()
        super().connection_lost(exc)
