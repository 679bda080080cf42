"""What a connection has to send, in as few writes as can be without making anybody wait."""

from __future__ import annotations

import asyncio


class Outbox:
    """Messages to one transport, in order. The first of a turn of the event loop leaves at once, the others in one more write.

    Before `open` and after `close` messages are lost, as any may be that a connection was given too late.
    """

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._waiting: list[bytes] = []
        self._flush_due = False
        self._wrote = False
        """Whether something has left in this turn."""

    def open(self, transport: asyncio.WriteTransport) -> None:
        """Write to this transport from now on."""
        self._transport = transport

    def send(self, message: bytes) -> None:
        """Send; for what somebody waits for."""
        self._waiting.append(message)
        if not self._wrote:
            self.flush()
            self._wrote = True
        self._schedule()

    def post(self, message: bytes) -> None:
        """Send with what comes next, or at the end of this turn."""
        self._waiting.append(message)
        self._schedule()

    def flush(self) -> None:
        """Write what waits, now."""
        waiting, self._waiting = self._waiting, []
        if self._transport is not None and waiting:
            self._transport.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def close(self) -> None:
        """Write what waits, then let go of the transport."""
        self.flush()
        self.drop()

    def drop(self) -> None:
        """Let go of the transport: it is gone."""
        self._transport = None

    def _schedule(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._flush_due = self._wrote = False
        self.flush()
