"""WebSockets: a route declared once, and one connection as its handler sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dormice.api.http.asgi import Message, Receive, Send
from dormice.api.http.call import Call
from dormice.api.http.errors import Answer

POLICY_VIOLATION = 1008
"""The code with which a connection is closed whose client may not have it any more: coming again is of no use."""


class Disconnected(Exception):
    """The client has gone."""


class WebSocket:
    """One connection. Accept it, or raise what it is refused with before that."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.accepted = False
        self.closed = False

    async def accept(self) -> None:
        """Take the connection. Raises Disconnected."""
        await self._next("websocket.connect")
        self.accepted = True
        await self._send({"type": "websocket.accept"})

    async def refuse(self, answer: Answer) -> None:
        """Answer the handshake with an error."""
        headers = {**answer.headers, "content-type": answer.media_type, "content-length": str(len(answer.body))}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "websocket.http.response.start", "status": answer.status, "headers": raw})
        await self._send({"type": "websocket.http.response.body", "body": answer.body})

    async def receive(self) -> str | bytes:
        """Return the next message. Raises Disconnected."""
        message = await self._next("websocket.receive")
        text: str | None = message.get("text")
        data: bytes | None = message.get("bytes")
        return text if text is not None else data or b""

    async def send(self, message: str | bytes) -> None:
        """Send a message, waiting for a client that reads slowly. Raises OSError when it has gone."""
        kind = "text" if isinstance(message, str) else "bytes"
        await self._send({"type": "websocket.send", kind: message})

    async def close(self, code: int, reason: str = "") -> None:
        """End the connection (RFC 6455, section 7.4); once."""
        if not self.closed:
            self.closed = True
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def _next(self, kind: str) -> Message:
        message = await self._receive()
        if message["type"] != kind:
            self.closed = True
            raise Disconnected
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class Socket:
    """One path that is a WebSocket. Its handler asks for the key itself: not every client can send one in a header."""

    path: str
    handle: Callable[[Call, WebSocket], Awaitable[None]]
