"""A transport that holds the head of an answer back until its first piece is there: one write for a short answer."""

from __future__ import annotations

import asyncio
from typing import Any

JOINED_BYTES = 64 << 10
"""A longer piece costs more to copy than to write alone."""


class HeldHead(asyncio.Transport):
    """Around a connection's transport. uvicorn writes a head and the body one after the other, each a system call."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write what is no head at once, with the head that waits for it."""
        if self._head and len(data) <= JOINED_BYTES:
            head, self._head = self._head, b""
            self._transport.write(b"".join((head, data)))
        elif data[:9] == b"HTTP/1.1 ":
            self._head = bytes(data)
            self._loop.call_soon(self._let_go)  # of a stream whose first piece comes later
        else:
            self._let_go()
            self._transport.write(data)

    def _let_go(self) -> None:
        head, self._head = self._head, b""
        if head:
            self._transport.write(head)

    def close(self) -> None:
        self._let_go()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        return len(self._head) + self._transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
