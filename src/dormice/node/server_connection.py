"""The node's end of one connection to the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from dormice.outbox import Outbox
from dormice.protocol import node as wire
from dormice.protocol.framing import Framer, FramingViolation, frame

log = logging.getLogger(__name__)


class ServerConnection(asyncio.Protocol):
    """Messages each way, from the hello on. `welcome` is called once, `do` with everything that the server says after it."""

    def __init__(self, welcome: Callable[[], None], do: Callable[[wire.ToNode], None]) -> None:
        self._welcome, self._do = welcome, do
        self._framer = Framer()
        self._transport: asyncio.Transport | None = None
        self._outbox = Outbox()
        self.lost = asyncio.Event()
        self.welcomed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a stream connection has a Transport
        self._outbox.open(transport)  # type: ignore[arg-type] # likewise

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        self._outbox.drop()
        self.lost.set()

    def data_received(self, data: bytes) -> None:
        try:
            messages = [wire.decode_to_node(message) for message in self._framer.feed(data)]
        except (FramingViolation, wire.NodeProtocolViolation) as violation:
            log.warning("server connection dropped: %s", violation)
            self.close()
            return
        for message in messages:
            if isinstance(message, wire.Welcome) and not self.welcomed:
                self.welcomed = True
                self._welcome()
            elif self.welcomed:
                self._do(message)

    def send(self, message: wire.FromNode) -> None:
        """Send, with the other news of this turn: the server commits together what arrives together."""
        self._outbox.post(frame(wire.encode(message)))

    def flush(self) -> None:
        """Send what there is to say now."""
        self._outbox.flush()

    def close(self) -> None:
        self._outbox.flush()
        if self._transport is not None:
            self._transport.abort()
