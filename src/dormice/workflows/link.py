"""Two connections to the server: one for requests, one at a time, and one for a stream of lines.

On a bare asyncio transport and the parser of httptools: a request costs a tenth of what a general client takes for it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec

from dormice.client.settings import ClientSettings

CONNECT_SECONDS = 5.0
MOST_BUFFERED = 1 << 20


class _Refusal(msgspec.Struct):
    error: str
    error_type: str = ""


class LinkFailed(Exception):
    """No answer, or one that says no. `status` is 0 when there was none; `kind` is the server's `error_type`, if it named one."""

    def __init__(self, message: str, status: int = 0, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind

    @property
    def level(self) -> int:
        """How it is to be logged when it is tried again: of a key that is refused no new try makes a good one."""
        return logging.ERROR if self.status in (401, 403) else logging.WARNING


class Link:
    """The way to one server."""

    def __init__(self, settings: ClientSettings, project_id: str | None) -> None:
        url = urlsplit(settings.base_url)
        self.base_url = settings.base_url
        self._host = url.hostname or ""
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._port = url.port or (443 if self._tls is not None else 80)
        self._path = url.path
        headers = {
            "host": url.netloc.rpartition("@")[2],
            "content-type": "application/json",
            "user-agent": "dormice-worker",
        }
        headers |= settings.headers()
        if project_id is not None:
            headers["x-project-id"] = project_id
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._kept: _Wire | None = None

    async def ask(self, path: str, body: bytes, seconds: float) -> bytes:
        """Send a POST that may be repeated, and return the body of a good answer. Raises LinkFailed."""
        try:
            async with asyncio.timeout(seconds):
                kept, self._kept = self._kept, None
                if kept is not None and kept.usable:
                    try:
                        return await self._exchange(kept, path, body)
                    except LinkFailed as failure:
                        if failure.status:
                            raise
                return await self._exchange(await self._open(), path, body)
        except TimeoutError:
            raise LinkFailed(f"no answer from {self.base_url} within {seconds:.0f} s") from None

    async def _exchange(self, wire: _Wire, path: str, body: bytes) -> bytes:
        try:
            wire.send(self._request(path, body))
            status = await wire.status()
            pieces = []
            while piece := await wire.read():
                pieces.append(piece)
        except BaseException:
            wire.close()
            raise
        if wire.reusable and self._kept is None:
            self._kept = wire
        else:
            wire.close()
        return _good(status, b"".join(pieces))

    async def lines(self, path: str, body: bytes, silence: float) -> AsyncGenerator[bytes, None]:
        """Send a POST and yield the lines of its answer, until it ends or nothing comes for so many seconds. Raises LinkFailed."""
        wire = await self._open()
        try:
            wire.send(self._request(path, body))
            async with asyncio.timeout(silence):
                status = await wire.status()
                if status >= 300:
                    _good(status, await wire.read())
            begun: list[bytes] = []
            while True:
                async with asyncio.timeout(silence):
                    piece = await wire.read()
                if not piece:
                    return
                begun.append(piece)
                if b"\n" in piece:
                    *whole, rest = b"".join(begun).split(b"\n")
                    begun = [rest]
                    for line in whole:
                        yield line
        except TimeoutError:
            raise LinkFailed(f"nothing from {self.base_url} for {silence:.0f} s") from None
        finally:
            wire.close()

    def close(self) -> None:
        """Close the connection for requests."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    async def _open(self) -> _Wire:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, wire = await loop.create_connection(_Wire, self._host, self._port, ssl=self._tls)
        except TimeoutError:
            raise LinkFailed(f"{self.base_url} was not reached within {CONNECT_SECONDS:.0f} s") from None
        except OSError as error:
            raise LinkFailed(f"{self.base_url} was not reached: {error.strerror or error}") from error
        return wire

    def _request(self, path: str, body: bytes) -> bytes:
        head = f"POST {self._path}{path} HTTP/1.1\r\n{self._headers}content-length: {len(body)}\r\n\r\n"
        return head.encode("ascii") + body


class _Wire(asyncio.Protocol):
    """One connection. The names of the parser's calls are the parser's."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._status: int | None = None
        self._complete = True
        self._kept_open = False
        self._lost: str | None = None
        self._news: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop is none by its class

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lose(f"what came is not HTTP: {error}")
            self.close()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(str(error) if error is not None else "the connection was closed")

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)
        self._buffered += len(data)
        if self._buffered > MOST_BUFFERED and self._transport is not None:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self._complete = True
        self._kept_open = self._parser.should_keep_alive()  # known here only

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._lost is None and self._transport is not None and not self._transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether the server keeps it open, once an answer was read to its end."""
        return self.usable and self._complete and self._kept_open

    def send(self, request: bytes) -> None:
        if not self.usable or self._transport is None:
            raise LinkFailed("the connection was closed")
        self._parser = httptools.HttpResponseParser(self)
        self._status, self._complete = None, False
        self._transport.write(request)

    async def status(self) -> int:
        while self._status is None:
            await self._wait()
        return self._status

    async def read(self) -> bytes:
        """Return what has come of the body; empty at its end."""
        while not self._pieces:
            if self._complete:
                return b""
            await self._wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._buffered > MOST_BUFFERED and self._transport is not None:
            with suppress(RuntimeError):
                self._transport.resume_reading()
        self._buffered = 0
        return data

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        if self._lost is not None:
            raise LinkFailed(self._lost)
        self._news = asyncio.get_running_loop().create_future()
        try:
            await self._news
        finally:
            self._news = None

    def _lose(self, why: str) -> None:
        self._lost = self._lost or why
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def _good(status: int, body: bytes) -> bytes:
    if status < 300:
        return body
    try:
        refusal = msgspec.json.decode(body, type=_Refusal)
    except msgspec.MsgspecError:  # that is not the server
        refusal = _Refusal("")
    said = refusal.error or f"HTTP status {status}: {body[:500].decode(errors='replace')}"
    raise LinkFailed(said, status, refusal.error_type)
