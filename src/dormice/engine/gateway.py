"""The server's end of the node protocol: one node at a time, the newest connection wins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from dormice.outbox import Outbox
from dormice.protocol import node as wire
from dormice.protocol.framing import Framer, FramingViolation, frame

log = logging.getLogger(__name__)


class NodeListener(Protocol):
    """What the gateway tells the engine."""

    def node_joined(self, hello: wire.NodeHello) -> None:
        """Announce a node, and what lives on it. Everything before this message is history."""
        ...

    def node_left(self) -> None:
        """Announce that the node is gone: nothing sent since the last answer may have arrived."""
        ...

    def node_said(self, message: wire.FromNode) -> None:
        """Pass on one message of the present node."""
        ...


class Gateway:
    """Accepts the node's connection and speaks the protocol on it."""

    def __init__(self) -> None:
        self._listener: NodeListener | None = None
        self._current: _NodeConnection | None = None

    @property
    def connected(self) -> bool:
        """Whether a node has said hello and is still there."""
        return self._current is not None

    def bind(self, listener: NodeListener) -> None:
        """Name who is told. Once, before the first connection."""
        self._listener = listener

    def send(self, message: wire.ToNode) -> bool:
        """Send to the present node; False if there is none (the message is lost, as any may be)."""
        if self._current is None:
            return False
        self._current.send(message)
        return True

    def post(self, message: wire.ToNode) -> None:
        """Send what nobody waits for, with what comes next."""
        if self._current is not None:
            self._current.post(message)

    def protocol(self) -> asyncio.Protocol:
        """Return a new connection's protocol, for `loop.create_unix_server`."""
        return _NodeConnection(self._accept, self._message, self._lost)

    def _accept(self, connection: _NodeConnection, hello: wire.NodeHello) -> None:
        previous, self._current = self._current, connection
        if previous is not None:
            previous.abort()
            self._tell.node_left()
        connection.send(wire.Welcome(wire.VERSION))
        self._tell.node_joined(hello)

    def _message(self, connection: _NodeConnection, message: wire.FromNode) -> None:
        if connection is self._current:
            self._tell.node_said(message)

    def _lost(self, connection: _NodeConnection) -> None:
        if connection is self._current:
            self._current = None
            self._tell.node_left()

    @property
    def _tell(self) -> NodeListener:
        if self._listener is None:
            raise RuntimeError("the gateway has no listener yet")
        return self._listener


class _NodeConnection(asyncio.Protocol):
    def __init__(
        self,
        accept: Callable[[_NodeConnection, wire.NodeHello], None],
        message: Callable[[_NodeConnection, wire.FromNode], None],
        lost: Callable[[_NodeConnection], None],
    ) -> None:
        self._accept, self._message, self._lost = accept, message, lost
        self._framer = Framer()
        self._welcome = False
        self._transport: asyncio.Transport | None = None
        self._outbox = Outbox()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a stream server hands out Transports
        self._outbox.open(transport)  # type: ignore[arg-type] # likewise

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._transport is not None:
            self._transport = None
            self._outbox.drop()
            self._lost(self)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._framer.feed(data):
                self._handle(wire.decode_from_node(message))
        except (FramingViolation, wire.NodeProtocolViolation) as violation:
            log.warning("node connection dropped: %s", violation)
            self.abort()

    def _handle(self, message: wire.FromNode) -> None:
        if self._welcome:
            self._message(self, message)
        elif isinstance(message, wire.NodeHello) and message.version == wire.VERSION:
            self._welcome = True
            self._accept(self, message)
        else:
            raise wire.NodeProtocolViolation(f"expected NodeHello version {wire.VERSION}")

    def send(self, message: wire.ToNode) -> None:
        self._outbox.send(frame(wire.encode(message)))

    def post(self, message: wire.ToNode) -> None:
        self._outbox.post(frame(wire.encode(message)))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
