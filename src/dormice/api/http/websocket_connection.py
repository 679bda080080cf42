"""The TCP side of WebSockets: uvicorn's protocol, with an end to what a silent client can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

MOST_GRACES = 3
"""So often in a row may an answer to a ping be missing because what the client has sent before it is not read yet."""


class WebSocketConnection(WebSocketsSansIOProtocol):
    """uvicorn closes in order when a ping is not answered, which waits for ever for a client that does not read.

    It also logs an error for every handshake that is answered with a refusal, which anybody can ask for.
    """

    _graces = 0

    async def send(self, message: ASGISendEvent) -> None:
        """Take a whole answer of another kind for an end of the handshake, which uvicorn does for its own 403 alone."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    def handle_pong(self, event: Frame) -> None:
        """The client answers."""
        self._graces = 0
        super().handle_pong(event)

    def keepalive_timeout(self) -> None:
        """Drop the client with all that it has not read. Whoever sends to it is told that it has gone."""
        if self.read_paused and self._graces < MOST_GRACES:
            self._graces += 1
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self.transport.abort()
