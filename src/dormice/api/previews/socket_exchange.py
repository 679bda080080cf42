"""A WebSocket of a client and one to a port, each with a handshake of its own; messages go on whole, in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import h11
from websockets.client import ClientProtocol
from websockets.datastructures import Headers as SocketHeaders
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from dormice.api.http.asgi import Receive, Send
from dormice.api.http.replies import Reply
from dormice.api.previews.addresses import Target
from dormice.api.previews.exchange import PortFailed, PortSlow
from dormice.api.previews.headers import Headers, towards_the_client
from dormice.api.previews.outgoing import Outgoing
from dormice.engine.port_connections import Connection, Place

CLOSING_SECONDS = 2.0
ANSWERS_BYTES = 1 << 20
"""Of pongs that a port has not taken, at most: it is not read any further then."""
_NORMAL, _NO_CODE, _ABNORMAL, _NO_TLS, _BAD_GATEWAY = 1000, 1005, 1006, 1015, 1014
_NEVER_SENT = frozenset({_NO_CODE, _ABNORMAL, _NO_TLS})
"""Codes that say that there was none: they may not be sent."""


class SocketExchange:
    """Use it once."""

    def __init__(
        self,
        place: Place,
        target: Target,
        request: h11.Request,
        subprotocols: Sequence[str],
        *,
        most_bytes: int,
        patience_seconds: float,
    ) -> None:
        self._place = place
        self._target = target
        self._request = request
        self._patience = patience_seconds
        self._port = ClientProtocol(
            WebSocketURI(secure=False, host="preview", port=80, path="/", query=""),
            subprotocols=[Subprotocol(word) for word in subprotocols] or None,
            max_size=most_bytes,
        )
        self._outgoing = Outgoing(most_bytes + ANSWERS_BYTES)
        self._message = bytearray()
        self._kind = Opcode.BINARY
        self._client_gone = False
        self._port_gone = asyncio.Event()
        self._early: list[Any] = []
        """Frames that came with the answer to the handshake."""

    async def run(self, receive: Receive, send: Send) -> Reply | None:
        """Pass on until one side ends it; return the port's refusal if it takes no WebSocket.

        Raises PortFailed, PortSlow and what connecting raises, as long as the client's handshake was not answered.
        """
        if (await receive())["type"] != "websocket.connect":
            return None
        connection, _ = await self._place.connect(fresh=True)
        response = await self._shake_hands(connection)
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.headers.raw_items()]
        passed = towards_the_client(headers, self._target, response.status_code)
        if isinstance(self._port.handshake_exc, InvalidStatus):
            return _reply(response, passed)
        await send({"type": "websocket.accept", "subprotocol": self._port.subprotocol, "headers": passed})
        try:
            async with asyncio.TaskGroup() as group:
                to_client = group.create_task(self._pass_to_client(connection, send))
                to_port = group.create_task(self._pass_to_port(receive))
                writer = group.create_task(self._outgoing.run(connection))
                to_client.add_done_callback(lambda _: to_port.cancel())
                to_client.add_done_callback(lambda _: writer.cancel())
                to_port.add_done_callback(lambda _: to_client.cancel())
        except* OSError:
            pass  # the client is gone
        return None

    async def _shake_hands(self, connection: Connection) -> Response:
        request = self._port.connect()
        request.path = self._request.target.decode("ascii")
        shaken = [(name, value) for name, value in request.headers.raw_items() if name not in ("Host", "User-Agent")]
        passed = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._request.headers]
        request.headers = SocketHeaders([*passed, *shaken])
        self._port.send_request(request)
        try:
            async with asyncio.timeout(self._patience):
                await connection.write(self._to_send())
                events: list[Any] = []
                while not events and self._port.handshake_exc is None:
                    self._take(await connection.read())
                    events = self._port.events_received()
        except TimeoutError:
            raise PortSlow(f"it did not answer the handshake within {self._patience:.0f} s") from None
        failure = self._port.handshake_exc
        if not events or (failure is not None and not isinstance(failure, InvalidStatus)):
            raise PortFailed(f"it takes no WebSocket: {failure}")
        response: Response = events[0]
        self._early = events[1:]
        return response

    async def _pass_to_client(self, connection: Connection, send: Send) -> None:
        frames, self._early = self._early, []
        over = False
        while True:
            for frame in frames:
                if not self._client_gone:
                    await self._pass_frame(frame, send)
            # What a ping, or the end, is answered with. It is not waited for: the port may read nothing before it is read from.
            self._outgoing.add(self._to_send())
            closed = self._port.close_rcvd
            if over or closed is not None or self._port.parser_exc is not None:
                break
            await self._outgoing.room()
            data = await connection.read()
            over = not data
            self._take(data)
            frames = self._port.events_received()
        self._port_gone.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._outgoing.sent()
        if not self._client_gone:
            code, reason = (_BAD_GATEWAY, "") if closed is None else (closed.code, closed.reason)
            await send({"type": "websocket.close", "code": _NORMAL if code in _NEVER_SENT else code, "reason": reason})

    async def _pass_frame(self, frame: Frame, send: Send) -> None:
        """Collect a message, and send it once it is whole."""
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._kind, self._message = frame.opcode, bytearray()
        self._message += frame.data  # a frame may be empty: what is kept of many of them must be nothing
        if not frame.fin:
            return
        message, self._message = bytes(self._message), bytearray()
        if self._kind is Opcode.TEXT:
            await send({"type": "websocket.send", "text": message.decode("utf-8", "replace")})
        else:
            await send({"type": "websocket.send", "bytes": message})

    async def _pass_to_port(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] != "websocket.receive":
                self._client_gone = True
                await self._close_port(message.get("code", _NO_CODE), message.get("reason") or "")
                return
            if self._port.state is not OPEN:
                continue  # the port has closed it, which the client is about to be told
            text: str | None = message.get("text")
            if text is not None:
                self._port.send_text(text.encode())
            else:
                self._port.send_binary(message["bytes"])
            self._outgoing.add(self._to_send())
            await self._outgoing.sent()

    async def _close_port(self, code: int, reason: str) -> None:
        """Tell the port why its client has gone, and give it a little while to take that in."""
        if self._port.state is not OPEN:
            return
        self._port.send_close(None if code in _NEVER_SENT else code, reason)
        self._outgoing.add(self._to_send())
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._port_gone.wait()

    def _take(self, data: bytes) -> None:
        if data:
            self._port.receive_data(data)
        else:
            self._port.receive_eof()

    def _to_send(self) -> bytes:
        return b"".join(self._port.data_to_send())


def _reply(response: Response, headers: Headers) -> Reply:
    """The port's refusal, with what of its headers is passed on: names may come several times."""
    reply = Reply(bytes(response.body or b""), status=response.status_code)
    framing = [(name, value) for name, value in reply.headers if name == b"content-length"]
    reply.headers = [*(header for header in headers if header[0] != b"content-length"), *framing]
    return reply
