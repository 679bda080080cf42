"""Connections to ports of the machine: what a client forwards (`ssh -L`, `ssh -D`)."""

from __future__ import annotations

import asyncio

import asyncssh
from asyncssh.stream import SSHTCPStreamSession

from dormice.domain.errors import DormiceError
from dormice.domain.execution import Stream
from dormice.domain.ids import canonical_machine_id
from dormice.engine.channel import Channel, ChannelOrder
from dormice.ssh.relay import PIECE_BYTES, carry_out, send
from dormice.ssh.shell import Opener

_HERE = {"localhost", "localhost.", "127.0.0.1", "::1", "ip6-localhost"}
_CONNECTED = b"+"


def is_here(host: str, machine_id: str) -> bool:
    """Whether a name means the machine itself."""
    host = host.lower()
    return host in _HERE or canonical_machine_id(host) == machine_id


async def forwarded(port: int, machine: Opener) -> SSHTCPStreamSession[bytes]:
    """Return a connection to a port of the machine's loopback. Raises ChannelOpenError when none can be made."""
    try:
        channel = await machine.open(ChannelOrder(argv=("dial", str(port)), tool=True))
    except DormiceError as error:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, error.message) from None
    first = await channel.read()
    if not first.startswith(_CONNECTED):
        said = await channel.read(Stream.STDERR)
        machine.close(channel)
        reason = said.decode(errors="replace").strip() or "the machine could not be asked"
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, reason)
    relay = _Relay(machine, channel, first.removeprefix(_CONNECTED))
    return SSHTCPStreamSession(relay.serve)


class _Relay:
    """One connection, from its first byte to its end."""

    def __init__(self, machine: Opener, channel: Channel, first: bytes) -> None:
        self._machine = machine
        self._channel = channel
        self._first = first

    async def serve(self, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send(reader))
                leaving = group.create_task(self._leave(writer))
                if await send(writer, self._first):
                    await carry_out(self._channel, Stream.STDOUT, writer)
                if not writer.is_closing():
                    writer.write_eof()
                sending.cancel()
                leaving.cancel()
        finally:
            self._machine.close(self._channel)
            writer.close()

    async def _send(self, reader: asyncssh.SSHReader[bytes]) -> None:
        try:
            while data := await reader.read(PIECE_BYTES):
                await self._channel.write(data)
        except (OSError, asyncssh.Error):
            return
        self._channel.write_eof()

    async def _leave(self, writer: asyncssh.SSHWriter[bytes]) -> None:
        await writer.wait_closed()
        self._channel.close()
