"""What is on its way to a port, in order. Whoever reads from the port adds to it without waiting: one writer takes it from here."""

from __future__ import annotations

import asyncio

from dormice.engine.port_connections import Connection


class Outgoing:
    """For one connection."""

    def __init__(self, most: int) -> None:
        """`most`: with so many bytes unsent there is no room."""
        self._most = most
        self._unsent = bytearray()
        self._some = asyncio.Event()
        self._sent = asyncio.Event()
        self._sent.set()

    def add(self, data: bytes) -> None:
        """Have it sent."""
        if data:
            self._unsent += data
            self._some.set()
            self._sent.clear()

    async def sent(self) -> None:
        """Wait until everything was taken."""
        await self._sent.wait()

    async def room(self) -> None:
        """Wait while there is none."""
        if len(self._unsent) > self._most:
            await self._sent.wait()

    async def run(self, connection: Connection) -> None:
        """Send what is added, until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            data, self._unsent = bytes(self._unsent), bytearray()
            await connection.write(data)
            if not self._unsent:
                self._sent.set()
