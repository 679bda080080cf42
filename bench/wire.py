"""HTTP as lean as it gets: on two cores every microsecond of the client is taken from the server.

Requests are bytes made in advance, answers are read by their Content-Length and not decoded unless somebody asks.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Self

RECEIVE_BYTES = 1 << 18
TIMEOUT_SECONDS = 120.0
SILENT_SECONDS = 4.0
"""After so long a connection is made anew: servers hang up on silent ones."""
_END = b"\r\n\r\n"


class BadAnswer(Exception):
    """The server answered something that a benchmark cannot go on with."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        """Return the decoded body. Raises BadAnswer on any status but 2xx and 304."""
        if not (200 <= self.status < 300 or self.status == 304):
            raise BadAnswer(f"{self.status}: {self.body[:500].decode(errors='replace')}")
        return json.loads(self.body) if self.body else None


def request(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """Return a whole request."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body or method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection:
    """A blocking keep-alive connection, one request at a time."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        self._address = address
        self._socket = _dial(address)
        self._used_at = perf_counter()
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, message: bytes) -> Answer:
        """Send a request and return its answer."""
        if perf_counter() - self._used_at > SILENT_SECONDS:
            self._socket.close()
            self._socket = _dial(self._address)
        self._socket.sendall(message)
        status, fields = self.head()
        chunked = fields.get(b"transfer-encoding") == b"chunked"
        body = self._chunked() if chunked else self._take(int(fields.get(b"content-length", b"0")))
        self._used_at = perf_counter()
        return Answer(status, body)

    def send(self, message: bytes) -> None:
        """Send a request whose answer is a stream."""
        self._socket.sendall(message)

    def head(self) -> tuple[int, dict[bytes, bytes]]:
        """Read status and headers."""
        while (end := self._rest.find(_END)) < 0:
            self._more()
        first, *lines = self._rest[:end].split(b"\r\n")
        self._rest = self._rest[end + len(_END) :]
        fields = dict(line.lower().split(b": ", 1) for line in lines if b": " in line)
        return int(first[9:12]), fields

    def until(self, mark: bytes) -> bytes:
        """Read a stream until a mark has come."""
        while mark not in self._rest:
            self._more()
        return self._rest

    def stream(self) -> bytes:
        """Return what comes next of a stream, empty at its end."""
        piece, self._rest = self._rest, b""
        return piece or self._socket.recv(RECEIVE_BYTES)

    def _more(self) -> None:
        piece = self._socket.recv(RECEIVE_BYTES)
        if not piece:
            raise BadAnswer(f"the server hung up after {self._rest[-2000:].decode(errors='replace')!r}")
        self._rest += piece

    def _take(self, size: int) -> bytes:
        pieces, missing = [self._rest[:size]], size - len(self._rest)
        self._rest = self._rest[size:]
        while missing > 0:
            piece = self._socket.recv(min(missing, RECEIVE_BYTES))
            if not piece:
                raise BadAnswer("the server hung up")
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _chunked(self) -> bytes:
        pieces = []
        while True:
            while (end := self._rest.find(b"\r\n")) < 0:
                self._more()
            size = int(self._rest[:end], 16)
            self._rest = self._rest[end + 2 :]
            pieces.append(self._take(size))
            self._take(2)
            if not size:
                return b"".join(pieces)


def _dial(address: str | tuple[str, int]) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    dialled = socket.socket(family, socket.SOCK_STREAM)
    dialled.settimeout(TIMEOUT_SECONDS)
    dialled.connect(address)
    if family == socket.AF_INET:
        dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return dialled


class _Lane(asyncio.Protocol):
    """One request in flight, over and over: what the load generator is made of."""

    def __init__(self, next_request: Callable[[], bytes | None], done: Callable[[float, bytes], None]) -> None:
        self._next_request, self._done = next_request, done
        self._transport: asyncio.Transport | None = None
        self._sent_at = 0.0
        self._buffer = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a stream connection has a Transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        head = buffer.find(_END)
        if head < 0:
            return
        at = buffer.find(b"content-length: ", 0, head)
        size = int(buffer[at + 16 : buffer.find(b"\r", at)])
        if len(buffer) < head + 4 + size:
            return
        self._buffer = b""
        self._done(perf_counter() - self._sent_at, buffer)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or BadAnswer("the server hung up"))

    def _ask(self) -> None:
        message = self._next_request()
        if self._transport is None:
            return
        if message is None:
            self.ended.set_result(None)
            self._transport.close()
            return
        self._sent_at = perf_counter()
        self._transport.write(message)


async def load(
    address: tuple[str, int], lanes: int, next_request: Callable[[], bytes | None], done: Callable[[float, bytes], None]
) -> None:
    """Keep so many requests in flight, each lane on a connection of its own, until `next_request` returns None.

    `done` gets the seconds that a request took and its answer, head and body.
    """
    loop = asyncio.get_running_loop()
    made = [(await loop.create_connection(lambda: _Lane(next_request, done), *address))[1] for _ in range(lanes)]
    await asyncio.gather(*(lane.ended for lane in made))
