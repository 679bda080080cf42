"""The connection of a WebSocket: uvicorn's, which lets go of a client that does not answer."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class WebSocketConnection(WebSocketsSansIOProtocol):
    """uvicorn closes in order when a ping is not answered, which waits for ever for a client that does not read."""

    def keepalive_timeout(self) -> None:
        """Drop the client with all that it has not read. Whoever sends to it is told that it has gone."""
        super().keepalive_timeout()
        self.transport.abort()
