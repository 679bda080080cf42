"""Reading a request's body: bounded in size before it is read, and in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import TYPE_CHECKING

from dormice.domain.errors import Invalid

if TYPE_CHECKING:
    from dormice.api.http.asgi import Receive, Scope

READ_SECONDS = 30.0
DRAIN_BYTES = 16 << 20
DRAIN_SECONDS = 5.0
WHOLE = "body_is_whole"
"""Set in the scope's state by the connection once the whole body has come: nobody then needs to watch the time."""


class Incomplete(Invalid):
    """The body did not come as a whole. That says nothing of what it would have been: it may be sent again."""


class TooLarge(Invalid):
    """The body has more bytes than it may have."""

    def __init__(self, limit: int, end: bytes = b"") -> None:
        """`end`: its last bytes, if they were asked for."""
        super().__init__(f"the body must have at most {limit} bytes", location="body", status=413)
        self.end = end


async def read_body(
    scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, limit: int, *, end_bytes: int = 0
) -> bytes:
    """Return the whole body. Raises TooLarge (by Content-Length before reading), Incomplete (408) when it is slow.

    With `end_bytes`, a body that is too large is read all the same, and TooLarge has so many of its last bytes.
    """
    announced = headers.get(b"content-length", b"")
    if not end_bytes and announced.isdigit() and int(announced[:20]) > limit:
        raise TooLarge(limit)
    if WHOLE in scope["state"]:
        return await _collect(receive, limit, end_bytes)
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await _collect(receive, limit, end_bytes)
    except TimeoutError:
        raise Incomplete(f"the body did not arrive within {READ_SECONDS:.0f} s", location="body", status=408) from None


async def _collect(receive: Receive, limit: int, end_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Incomplete("the client went away before the body was whole", location="body", status=400)
        piece = message.get("body", b"")
        size += len(piece)
        pieces.append(piece)
        if size > limit:
            if not end_bytes:
                raise TooLarge(limit)
            pieces = [b"".join(pieces)[-end_bytes:]]
        if not message.get("more_body", False):
            break
    if size > limit:
        raise TooLarge(limit, pieces[0])
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class BodyStream:
    """A request's body of any size, piece by piece, read no faster than it is asked for."""

    def __init__(
        self, receive: Receive, while_valid: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    ) -> None:
        """`while_valid` cancels its block once nothing more is to be taken from the client."""
        self._receive = receive
        self._while_valid = while_valid
        self._whole = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces. Raises what `while_valid` does, and Incomplete when the client goes away, or (408) sends nothing
        for READ_SECONDS.
        """
        while not self._whole:
            try:
                async with self._while_valid(), asyncio.timeout(READ_SECONDS):
                    message = await self._receive()
            except TimeoutError:
                late = f"nothing of the body came for {READ_SECONDS:.0f} s"
                raise Incomplete(late, location="body", status=408) from None
            if message["type"] != "http.request":
                raise Incomplete("the client went away before the body was whole", location="body", status=400)
            self._whole = not message.get("more_body", False)
            if piece := message.get("body", b""):
                yield piece

    async def drain(self) -> None:
        """Read a rest that nobody wants, within bounds: a client that still sends would not see the answer."""
        left = DRAIN_BYTES
        self._while_valid = nullcontext
        with suppress(TimeoutError, Incomplete):
            async with asyncio.timeout(DRAIN_SECONDS):
                async for piece in self:
                    left -= len(piece)
                    if left < 0:
                        return
