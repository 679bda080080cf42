"""The least HTTP client there can be: a connection for each request, so that hundreds of clients cost little and can go away at any moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from tests.wait import others_run


class NoAnswer(Exception):
    """The connection broke, or never was."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request; `body` is bytes, or what becomes JSON."""

    method: str
    path: str
    query: Mapping[str, str | int] | None = None
    key: str = ""
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """More of them."""

    def encode(self, api_key: str) -> bytes:
        """Return it as it is sent."""
        octets = isinstance(self.body, bytes)
        content = self.body if octets else b"" if self.body is None else json.dumps(self.body).encode()
        head = [
            f"{self.method} {self.path}{'?' + urlencode(self.query) if self.query else ''} HTTP/1.1",
            "Host: faults",
            "Connection: close",
            f"Authorization: Bearer {api_key}",
            f"Content-Type: application/{'octet-stream' if octets else 'json'}",
            f"Content-Length: {len(content)}",
            *([f"Idempotency-Key: {self.key}"] if self.key else []),
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join([*head, "", ""]).encode() + content


class Wire:
    """Sends requests to one server on this host."""

    def __init__(self, port: int, api_key: str) -> None:
        self._port = port
        self._api_key = api_key

    async def ask(self, request: Request, patience: float = 30.0) -> tuple[int, bytes]:
        """Return status and body of the answer. Raises NoAnswer, also after `patience` seconds."""
        try:
            async with asyncio.timeout(patience), self._sent(request) as reader:
                whole = await reader.read()
        except TimeoutError:
            raise NoAnswer from None
        head, _, body = whole.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        lengths = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
        if lengths != [len(body)]:
            raise NoAnswer
        return int(lines[0].split()[1]), body

    async def walk_out(self, request: Request, after: float) -> None:
        """Send a request, and hang up after so many seconds without having read the answer. Raises NoAnswer."""
        async with self._sent(request):
            await others_run(after)

    @asynccontextmanager
    async def _sent(self, request: Request) -> AsyncIterator[asyncio.StreamReader]:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
            try:
                writer.write(request.encode(self._api_key))
                yield reader
            finally:
                writer.transport.abort()
        except OSError:
            raise NoAnswer from None
