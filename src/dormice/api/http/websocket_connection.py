"""The TCP side of WebSockets: uvicorn's protocol, with an end to what a silent client can hold."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

MOST_GRACES = 3
"""So often in a row may an answer to a ping be missing because what the client has sent before it is not read yet."""


class WebSocketConnection(WebSocketsSansIOProtocol):
    """uvicorn closes in order when a ping is not answered, which waits for ever for a client that does not read."""

    _graces = 0

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
