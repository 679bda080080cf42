"""Connections to ports of the machine: what a client forwards (`ssh -L`, `ssh -D`)."""

from __future__ import annotations

import asyncio

import asyncssh

from dormice.domain.errors import DormiceError
from dormice.domain.execution import Stream
from dormice.domain.ids import canonical_machine_id
from dormice.engine.channel import Channel, ChannelOrder
from dormice.ssh.relay import ClientEnd
from dormice.ssh.shell import Opener

_HERE = {"localhost", "localhost.", "127.0.0.1", "::1", "ip6-localhost"}
_CONNECTED = b"+"


def is_here(host: str, machine_id: str) -> bool:
    """Whether a name means the machine itself."""
    host = host.lower()
    return host in _HERE or canonical_machine_id(host) == machine_id


async def forwarded(port: int, machine: Opener) -> ForwardedSession:
    """Return a connection to a port of the machine's loopback. Raises ChannelOpenError when none can be made."""
    try:
        process = await machine.open(ChannelOrder(argv=("dial", str(port)), tool=True))
    except DormiceError as error:
        machine.left()
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, error.message) from None
    first = await process.read()
    if not first.startswith(_CONNECTED):
        said = await process.read(Stream.STDERR)
        machine.close(process)
        machine.left()
        reason = said.decode(errors="replace").strip() or "the machine could not be asked"
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, reason)
    return ForwardedSession(machine, process, first.removeprefix(_CONNECTED))


class ForwardedSession(ClientEnd, asyncssh.SSHTCPSession[bytes]):
    """One such connection, from its first byte to its end."""

    def __init__(self, machine: Opener, process: Channel, first: bytes) -> None:
        """`first`: what has been read of it already."""
        super().__init__(machine.traffic)
        self._machine = machine
        self._process = process
        self._first = first

    def session_started(self) -> None:
        """Carry its bytes."""
        group = self.channel.get_connection()
        group.create_task(self._serve(), self.channel.logger)  # ends with the connection at the latest

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._machine.left()

    async def _serve(self) -> None:
        process = self._process
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send())
                leaving = group.create_task(self.leave(process))
                if await self.write(self._first):
                    await self.carry_out(process, Stream.STDOUT)
                if not self.channel.is_closing():
                    self.channel.write_eof()
                sending.cancel()
                leaving.cancel()
        finally:
            self._machine.close(process)
            self.channel.close()

    async def _send(self) -> None:
        while data := await self.read():
            await self._process.write(data)
        self._process.write_eof()
