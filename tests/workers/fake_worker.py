"""A small real HTTP server in the place of a worker. What it does with a request is up to the test."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from tests.wait import others_run

ACCEPTED = b'{"status":"accepted","execution_id":"e"}'


@dataclass(frozen=True)
class Received:
    connection: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: bytes = b"{}", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Some reason", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def sends(*pieces: bytes, ends: bool = False) -> Answering:
    """Send `pieces`, each in a packet of its own, and end the connection if asked to."""

    async def answering(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if ends:
            writer.close()

    return answering


def repeats(first: bytes, piece: bytes) -> Answering:
    """Send `first`, then `piece` for as long as somebody takes it."""

    async def answering(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while not writer.transport.is_closing():
            writer.write(piece)
            await writer.drain()
            await others_run(0.001)

    return answering


async def resets(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reset(writer.get_extra_info("socket"))
    writer.transport.abort()


async def keeps_silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def reset(connection: socket.socket) -> None:
    """Let the end of a connection be a reset, whatever was read of it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class FakeWorker:
    """`answering` is asked for every request; `connections` counts all, `open` those that are open."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        self._tls, self._host, self.port = tls, host, port
        self.answering: Answering = sends(answer(200, ACCEPTED))
        self.received: list[Received] = []
        self.connections = self.open = 0
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http{'s' * bool(self._tls)}://{self._host}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def end_all(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self._writers.add(writer)
        number = self.connections
        try:
            while not writer.is_closing():
                self.received.append(await _request(reader, number))
                await self.answering(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()


async def _request(reader: asyncio.StreamReader, connection: int) -> Received:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Received(connection, method, path, headers, await reader.readexactly(int(headers["content-length"])))
