"""One HTTP/1.1 connection for one request at a time, on a bare protocol and the parser of httptools.

A general client costs several times as much processor time per request, and what it adds (proxies, redirects, cookies,
decompression) is what must not happen here.
"""

from __future__ import annotations

import asyncio
import select
from typing import NamedTuple, cast

import httptools


class Reply(NamedTuple):
    """What was answered. `status` is None when it was not: the request may have been read nevertheless."""

    status: int | None
    body: bytes


class HttpConnection(asyncio.Protocol):
    """A connection that is open. `answer_bytes` limits an answer with its head."""

    def __init__(self, answer_bytes: int) -> None:
        self._answer_bytes = answer_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._readable = select.poll()
        self._done: asyncio.Future[None] | None = None
        self.asked = False
        self._begin()

    def _begin(self) -> None:
        self._status: int | None = None
        self._body = bytearray()
        self._received = 0
        self._complete = False
        self._keep_alive = False

    @property
    def reply(self) -> Reply:
        """What is known of the answer to the last request: its status line counts, even if the rest was cut off."""
        return Reply(self._status, bytes(self._body))

    @property
    def reusable(self) -> bool:
        """Whether the last answer was read to its end, and the other side has neither closed nor said more since.

        The kernel is asked, not the event loop, which may not have got round to an end that has already arrived.
        """
        return (
            self._complete
            and self._keep_alive
            and not self.closing
            and not self._transport.get_write_buffer_size()  # it answered without reading all of the request
            and not self._readable.poll(0)
        )

    @property
    def closing(self) -> bool:
        return self._transport.is_closing()

    async def ask(self, *request: bytes) -> Reply:
        """Send a request and wait for the end of its answer; the caller sets the time limit.

        `asked` tells afterwards whether any of it may have been sent. Raises ConnectionResetError before that.
        """
        self.asked = False
        self._begin()
        if self.closing:
            raise ConnectionResetError("the connection was closed before the request was sent")
        self._done = asyncio.get_running_loop().create_future()
        self.asked = True
        self._transport.writelines(request)
        await self._done
        return self.reply

    def close(self) -> None:
        self._transport.abort()

    # What the event loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        room = self._answer_bytes - self._received
        self._received += len(data)
        try:
            if not self._complete:
                self._parser.feed_data(data[:room])
                if len(data) <= room:
                    return
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):  # the one is none of the other
            pass  # what was understood before counts
        self._give_up()

    def connection_lost(self, _error: Exception | None) -> None:
        self._end()

    # What the parser tells.

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep_alive = False  # more than one answer to one request

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and not self._complete:  # below, another head follows
            self._status = status

    def on_body(self, data: bytes) -> None:
        if not self._complete:
            self._body += data

    def on_message_complete(self) -> None:
        if self._status is not None and not self._complete:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()  # the parser forgets after this call
            self._end()

    def _give_up(self) -> None:
        self._keep_alive = False
        self._end()
        self._transport.abort()

    def _end(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)
