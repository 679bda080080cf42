"""The TCP side of HTTP: uvicorn's protocol, with an end to what a slow, silent or hostile client can hold.

Give `Connection` to uvicorn as its `http` class. What uvicorn leaves open and this closes: a request head that never
ends or is huge, a client that sends nothing or reads nothing, and errors of the parser in plain text. When there are too many connections,
those go first whose client is waited for: how many requests are served is bounded elsewhere, for each organization.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dormice.api.http.bodies import WHOLE
from dormice.api.http.errors import Answer, describe, problem
from dormice.api.http.held_head import HeldHead
from dormice.api.http.replies import CUT
from dormice.domain.errors import Unavailable

HEAD_SECONDS = 10.0
"""From the connection, or the end of the answer before, to the whole head of the next request once it has begun."""
HEAD_BYTES = 64 << 10
STALL_SECONDS = 60.0
"""How long a client may not read a byte of what waits for it."""
MOST_CONNECTIONS = 20_000
OTHER_FILES = 64
"""Descriptors that connections leave for the rest of the server: its store, its node, an answer to one connection too many."""


class Connection(HttpToolsProtocol):
    """One connection of a client."""

    _idle: ClassVar[dict[Connection, None]] = {}
    """Those that wait for their client, to send a request or to read, first the one that has for longest. Of the process, as descriptors are."""
    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0
    _upgraded = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin. Beyond MOST_CONNECTIONS, or what descriptors there are for, the one is closed that has been idle for longest."""
        super().connection_made(HeldHead(transport, self.loop))
        self._sort()
        self._await_head()
        most = most_connections()
        if len(self.connections) > most:
            next(iter(self._idle)).give_way(most)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._idle.pop(self, None)
        self._disarm_head()
        self._disarm_stall()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head is bounded in size and in time, a body by the application."""
        if self.transport.is_closing():
            return
        began_before = self._in_head
        super().data_received(data)
        if self._upgraded or self.transport.is_closing():
            return
        # What came together with the head's first byte may be the end of a body, and is bounded by the read buffer.
        self._head_bytes = self._head_bytes + len(data) if self._in_head and began_before else 0
        if self._head_bytes > HEAD_BYTES:
            self._refuse(problem(431, f"the request's head must have at most {HEAD_BYTES} bytes"))
        elif self._serving():
            self._sort()
            self._disarm_head()
        else:
            self._await_head()

    def on_message_begin(self) -> None:
        """The first byte of a head has come."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole. Raises ValueError, which stops the parser, for a body that cannot be read."""
        self._in_head = False
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings not in ([], [b"chunked"]):
            # Here, before anything is served: the parser takes some for chunked, and minds others too late to be answered.
            words = "Transfer-Encoding must be chunked and nothing else: send the body as it is, or by Content-Length"
            self._refuse(problem(400, words))
            raise ValueError(words)
        self.scope["state"][CUT] = self.transport.close
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole."""
        self.scope["state"][WHOLE] = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is written, and nothing waits behind it unless it was sent already."""
        super().on_response_complete()
        self._sort()

    def handle_websocket_upgrade(self) -> None:
        """What comes from now on is no HTTP, and goes to another protocol."""
        self._upgraded = True
        self._idle.pop(self, None)
        self._disarm_head()
        super().handle_websocket_upgrade()

    def shutdown(self) -> None:
        """The server stops: open-ended streams are cut, so that their readers resume elsewhere; the rest may finish."""
        super().shutdown()
        if self._serving() and self.cycle.chunked_encoding:
            self.transport.close()

    def give_way(self, most: int) -> None:
        """Be closed; with an answer, which a request that is on its way takes for its own, unless the client does not read."""
        del self._idle[self]
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self._refuse(describe(Unavailable(f"{most} connections are open: come again", retry_after_ms=1000)))

    def send_400_response(self, _msg: str) -> None:
        """Answer what the parser does not take for HTTP, if it has no answer yet."""
        if self.transport.is_closing():
            return
        self._refuse(problem(400, "the request is not HTTP/1.1 that can be read"))

    def pause_writing(self) -> None:
        """The client reads slower than the answer comes: it has STALL_SECONDS to read on."""
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(STALL_SECONDS, self.transport.abort)
            self._sort()

    def resume_writing(self) -> None:
        """It reads on."""
        self._disarm_stall()
        self._sort()
        super().resume_writing()

    def _sort(self) -> None:
        """Take it for idle, if it is."""
        if self._serving() and self._stall_timer is None:
            self._idle.pop(self, None)
        else:
            self._idle.setdefault(self)

    def _serving(self) -> bool:
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_overdue)

    def _head_overdue(self) -> None:
        self._head_timer = None
        if self.transport.is_closing() or self._serving():
            return
        if self._in_head:
            self._refuse(problem(408, f"the request's head did not arrive within {HEAD_SECONDS:.0f} s"))
        else:
            self.transport.close()

    def _refuse(self, answer: Answer) -> None:
        """Answer outside of any request and close; in the midst of another answer, only close."""
        if self._serving():
            self.transport.abort()
            return
        lines = {
            **answer.headers,
            "content-type": answer.media_type,
            "content-length": str(len(answer.body)),
            "connection": "close",
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.transport.write(f"HTTP/1.1 {answer.status} \r\n{head}\r\n".encode("latin-1") + answer.body)
        self.transport.close()

    def _disarm_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _disarm_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None


def most_connections() -> int:
    """How many there may be: without a descriptor for one more, the kernel's queue is all that a client would meet."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, max(1, files - OTHER_FILES))
