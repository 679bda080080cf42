"""One request of a client and the answer to it, passed on between him and a port as they come, neither faster than it is taken.

The request goes on as h11 writes it: what a client had parsed as one request cannot become two. The answer is read by h11 too,
so what is no HTTP/1.1 is never passed on as if it were.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import h11

from dormice.api.http.replies import CUT
from dormice.api.previews.addresses import Target
from dormice.api.previews.headers import BadHead, Headers, towards_the_client
from dormice.engine.port_connections import Connection, Place

if TYPE_CHECKING:
    from dormice.api.http.asgi import Receive, Scope, Send

HEAD_BYTES = 64 << 10
"""The head of an answer at most."""
MOST_STATUS = 599
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})


class PortFailed(Exception):
    """What listens on the port did not answer as HTTP wants it."""


class PortSlow(Exception):
    """What listens on the port did not begin its answer in time."""


class _Unused(Exception):
    """A connection that was used before was closed at its other end before it could be used again."""


class Exchange:
    """Use it once."""

    def __init__(
        self, place: Place, target: Target, request: h11.Request, *, has_body: bool, patience_seconds: float
    ) -> None:
        self._place = place
        self._target = target
        self._request = request
        self._has_body = has_body
        self._patience = patience_seconds
        self._repeatable = not has_body and request.method.decode() in _REPEATABLE
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        self._opened: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.Timeout | None = None
        self._started = False
        self._asked = False
        """The request was given to the port whole. h11 takes it for sent before it is."""

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on. Raises PortFailed, PortSlow and what connecting raises, as long as nothing of an answer was sent."""
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(self._answer(scope, send))
            client = group.create_task(self._hear_client(receive, answer))
            answer.add_done_callback(lambda _: client.cancel())
        if not answer.cancelled() and (failure := answer.result()) is not None:
            raise failure

    async def _hear_client(self, receive: Receive, answer: asyncio.Task[Any]) -> None:
        """Send his body on as it comes; when he is gone, so is the reason for an answer."""
        # Not before there is a connection: reading makes the server ask a client that waits to be asked for its body.
        connection = await self._opened if self._has_body else None
        uploading = self._has_body
        while True:
            message = await receive()
            if message["type"] != "http.request":
                answer.cancel()
                return
            if connection is None or not uploading:
                continue
            if body := message.get("body", b""):
                await self._write(connection, h11.Data(data=body))
            if not message.get("more_body", False):
                uploading = False
                await self._write(connection, h11.EndOfMessage())

    async def _write(self, connection: Connection, event: h11.Data | h11.EndOfMessage) -> None:
        if self._http.our_state is not h11.SEND_BODY:
            return
        if data := self._http.send(event):
            await connection.write(data)
        self._asked = isinstance(event, h11.EndOfMessage)
        if self._timer is not None and not self._timer.expired():  # a slow upload is no slow answer
            self._timer.reschedule(asyncio.get_running_loop().time() + self._patience)

    async def _answer(self, scope: Scope, send: Send) -> Exception | None:
        """Send the answer; return why there is none."""
        try:
            connection, response = await self._begin()
            await self._relay(connection, response, send)
        except (h11.RemoteProtocolError, BadHead) as error:
            return await self._fail(scope, PortFailed(f"its answer is no HTTP/1.1 that can be passed on: {error}"))
        except Exception as error:  # noqa: BLE001 - not swallowed: `run` raises it, without a group around it
            return await self._fail(scope, error)
        return None

    async def _fail(self, scope: Scope, error: Exception) -> Exception | None:
        if not self._started:
            return error
        cut = scope["state"].get(CUT)
        if cut is None:
            return error
        cut()
        await asyncio.get_running_loop().create_future()  # until the client is seen to be gone
        return None

    async def _begin(self) -> tuple[Connection, h11.Response]:
        """Connect, send the head, and return the head of the answer."""
        connection, used = await self._place.connect(fresh=not self._repeatable)
        try:
            return connection, await self._ask(connection, used=used)
        except _Unused:
            self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
            connection, _ = await self._place.connect(fresh=True)
            return connection, await self._ask(connection, used=False)

    async def _ask(self, connection: Connection, *, used: bool) -> h11.Response:
        head = self._http.send(self._request) or b""
        if not self._has_body:
            head += self._http.send(h11.EndOfMessage()) or b""
        try:
            async with asyncio.timeout(self._patience) as self._timer:
                await connection.write(head)
                self._asked = not self._has_body
                if not self._opened.done():
                    self._opened.set_result(connection)
                while True:
                    event = await self._next(connection, used=used)
                    if isinstance(event, h11.Response):
                        break
                    used = False
        except TimeoutError:
            raise PortSlow(f"it did not begin its answer within {self._patience:.0f} s") from None
        finally:
            self._timer = None
        if event.status_code > MOST_STATUS:
            raise PortFailed(f"its status {event.status_code} is none")
        if sum(len(name) + len(value) for name, value in event.headers) > HEAD_BYTES:  # all of it came at once
            raise PortFailed(f"the head of its answer has more than {HEAD_BYTES} bytes")
        return event

    async def _relay(self, connection: Connection, response: h11.Response, send: Send) -> None:
        headers: Headers = towards_the_client(list(response.headers), self._target, response.status_code)
        self._started = True
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        while not isinstance(event := await self._next(connection), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
        if self._asked and self._http.their_state is h11.DONE and not self._http.trailing_data[0]:
            self._place.keep()
        else:
            self._place.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self, connection: Connection, *, used: bool = False) -> h11.Event:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = await connection.read()
                if not data and used:
                    raise _Unused
                used = False
                self._http.receive_data(data)
            elif isinstance(event, h11.ConnectionClosed):
                raise PortFailed("it closed the connection without an answer")
            elif isinstance(event, h11.Event):
                return event
            else:
                raise PortFailed("it wants to speak another protocol")
