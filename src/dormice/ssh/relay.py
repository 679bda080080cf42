"""Carrying bytes between a client and a channel, at the pace of the slower one."""

from __future__ import annotations

import asyncssh

from dormice.domain.execution import Stream
from dormice.engine.channel import Channel

PIECE_BYTES = 65_536


async def carry_out(channel: Channel, stream: Stream, writer: asyncssh.SSHWriter[bytes]) -> None:
    """Send what the process writes, up to its end. Ends early where nobody takes it any more."""
    while data := await channel.read(stream):
        if not await send(writer, data):
            return


async def send(writer: asyncssh.SSHWriter[bytes], data: bytes) -> bool:
    """Send bytes, and wait until there is room for more. False: nobody takes them any more."""
    try:
        for start in range(0, len(data), PIECE_BYTES):
            writer.write(data[start : start + PIECE_BYTES])
            await writer.drain()
    except (OSError, asyncssh.Error):
        return False
    return True
