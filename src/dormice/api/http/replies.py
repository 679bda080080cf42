"""Answers as ASGI applications: in one piece, or as a stream that ends when the client does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from dormice.domain.errors import DormiceError

if TYPE_CHECKING:
    from dormice.api.http.asgi import Receive, Scope, Send

JSON = b"application/json"
CUT = "cut"
"""Under this name the scope's state has what ends the connection in the midst of an answer, so that nobody takes half of it for the whole."""
WHILE_VALID = "while_valid"
"""Under this name it has a context manager that cancels its block once the caller's key is revoked, with Unauthenticated."""
_log = logging.getLogger("dormice.api")
_ENCODER = msgspec.json.Encoder()


class Reply:
    """An answer in one piece."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, body: bytes, *, status: int = 200, media_type: bytes = JSON, headers: Mapping[str, str] | None = None
    ) -> None:
        self.body = body
        self.status = status
        self.headers = _headers(media_type, headers)
        self.headers.append((b"content-length", b"%d" % len(body)))

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def json_reply(record: msgspec.Struct, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a record as JSON."""
    return Reply(_ENCODER.encode(record), status=status, headers=headers)


def list_reply(records: Sequence[msgspec.Struct]) -> Reply:
    """Return records as a JSON array."""
    return Reply(_ENCODER.encode(records))


@runtime_checkable
class Closed(Protocol):
    """What is to be closed once it is read no more."""

    async def aclose(self) -> None:
        """Let go of what it holds."""
        ...


class Stream:
    """An answer in pieces, produced no faster than the client reads; it stops as soon as the client is gone, or his key is revoked.

    An error of ours, a revoked key is one, becomes the last piece where `last_words` makes one of it. Else it cuts the answer off: its
    status line is long gone, and no client takes it for whole.
    """

    __slots__ = ("headers", "last_words", "pieces", "status")

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        *,
        status: int = 200,
        media_type: bytes = JSON,
        headers: Mapping[str, str] | None = None,
        last_words: Callable[[DormiceError], bytes] | None = None,
    ) -> None:
        self.pieces = pieces
        self.last_words = last_words
        self.status = status
        self.headers = _headers(media_type, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(scope, send))
                watcher = group.create_task(_cancel_when_gone(receive, writer))
                writer.add_done_callback(lambda _: watcher.cancel())
        except* DormiceError as errors:
            _log.warning("an answer was cut off: %s", errors.exceptions[0])
        finally:
            if isinstance(self.pieces, Closed):
                await self.pieces.aclose()

    async def _write(self, scope: Scope, send: Send) -> None:
        try:
            async with scope["state"].get(WHILE_VALID, nullcontext)():
                async for piece in self.pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    await asyncio.sleep(0)  # sending to a quick reader does not wait: let others have their turn
        except DormiceError as error:
            if self.last_words is None:
                raise
            await send({"type": "http.response.body", "body": self.last_words(error), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _cancel_when_gone(receive: Receive, writer: asyncio.Task[None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    writer.cancel()


def _headers(media_type: bytes, headers: Mapping[str, str] | None) -> list[tuple[bytes, bytes]]:
    found = [(b"content-type", media_type)]
    if headers:
        found.extend((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items())
    return found
