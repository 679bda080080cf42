"""Connections to ports of machines behind previews: made when needed, used again while they are fresh, bounded for each preview.

Each is a channel with the guest's tool `dial` at its other end, so it reaches the machine's own loopback and nothing else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from dormice.domain.errors import NotFound, RateLimited, Unavailable
from dormice.domain.limits import Limits
from dormice.domain.preview import Preview, PreviewProtocol
from dormice.engine.channel import Channel, ChannelOrder
from dormice.engine.channels import Channels
from dormice.engine.orders import Caller
from dormice.engine.port_tls import TlsConnection

KEPT_IDLE_SECONDS = 1.5
"""Less than any common server waits before it closes a connection that is not used."""
KEPT_IDLE = 32
STALL_SECONDS = 60.0
"""A port that takes nothing of what is sent to it for so long is given up: its client may be long gone, which nobody sees as long
as nothing more is read from him."""
_PIECE_BYTES = 65_536
_CONNECTED = b"+"
_NO_CONNECTION = 69


class PortRefused(Unavailable):
    """Nothing listens on the port, or what does speaks no TLS where it should."""


class Connection(Protocol):
    """A connection to a port. For one reader and one writer; `close` it whatever happens."""

    @property
    def quiet(self) -> bool:
        """Whether it is open and nothing has come that was not read."""
        ...

    async def read(self) -> bytes:
        """Return what comes next; empty at its end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send, no faster than it is taken; it is closed where nothing is taken. What nobody will take any more is dropped."""
        ...

    def close(self) -> None:
        """End it. May be repeated."""
        ...


class PlainConnection:
    """A connection as it is."""

    def __init__(self, channel: Channel, first: bytes) -> None:
        self._channel = channel
        self._first = first

    @property
    def quiet(self) -> bool:
        return not self._first and self._channel.quiet

    async def read(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return await self._channel.read()

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE_BYTES):
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await self._channel.write(data[start : start + _PIECE_BYTES])
            except TimeoutError:  # reading tells of the end
                self.close()
                return

    def close(self) -> None:
        self._channel.close()


class _Pool:
    """What one preview has."""

    def __init__(self, most: int, unused: Callable[[], None]) -> None:
        """`unused` is called when it has nothing any more."""
        self._unused = unused
        self.places = asyncio.Semaphore(most)
        self.requests = 0
        self.over = False
        self.used: set[Connection] = set()
        self.idle: dict[Connection, asyncio.TimerHandle] = {}

    def take_idle(self) -> Connection | None:
        """Return the connection that was used last, if one is still open."""
        while self.idle:
            connection, timer = self.idle.popitem()
            timer.cancel()
            if connection.quiet:
                return connection
            connection.close()
        return None

    def put_idle(self, connection: Connection) -> None:
        """Keep a connection for a while; one that cannot be used again is closed."""
        if self.over or not connection.quiet or len(self.idle) >= KEPT_IDLE:
            connection.close()
        else:
            loop = asyncio.get_running_loop()
            self.idle[connection] = loop.call_later(KEPT_IDLE_SECONDS, self._drop, connection)

    def end(self) -> None:
        """Close everything."""
        self.over = True
        for connection in (*self.used, *self.idle):
            connection.close()
        for timer in self.idle.values():
            timer.cancel()
        self.idle.clear()

    def check_use(self) -> None:
        """Tell when it has nothing any more."""
        if not self.requests and not self.idle:
            self._unused()

    def _drop(self, connection: Connection) -> None:
        self.idle.pop(connection, None)
        connection.close()
        self.check_use()


class Place:
    """A place among the requests of a preview."""

    def __init__(self, connections: PortConnections, preview: Preview, pool: _Pool) -> None:
        self._connections = connections
        self._preview = preview
        self._pool = pool
        self._held: Connection | None = None

    async def connect(self, *, fresh: bool = False) -> tuple[Connection, bool]:
        """Return a connection, and whether it was used before; with `fresh`, one that was not. The one held before is closed.

        Waits for a free one. Raises PortRefused, and what `Channels.open` raises.
        """
        self.close()
        await self._pool.places.acquire()
        try:
            if self._pool.over:
                raise NotFound("the preview is over")
            kept = None if fresh else self._pool.take_idle()
            self._held = kept or await self._make()
        except BaseException:
            self._pool.places.release()
            raise
        self._pool.used.add(self._held)
        return self._held, kept is not None

    async def _make(self) -> Connection:
        made = await self._connections.make(self._preview)
        if self._pool.over:  # meanwhile, which may have been long: its machine was woken
            made.close()
            raise NotFound("the preview is over")
        return made

    def keep(self) -> None:
        """Give the connection back, to be used again."""
        if (held := self._let_go()) is not None:
            self._pool.put_idle(held)

    def close(self) -> None:
        """Close the connection."""
        if (held := self._let_go()) is not None:
            held.close()

    def _let_go(self) -> Connection | None:
        held, self._held = self._held, None
        if held is not None:
            self._pool.used.discard(held)
            self._pool.places.release()
        return held


class PortConnections:
    """The connections of every preview."""

    def __init__(self, channels: Channels, limits: Limits) -> None:
        self._channels = channels
        self._limits = limits
        self._pools: dict[str, _Pool] = {}
        self._requests: Counter[str] = Counter()
        """By organization."""
        self.ends = 0
        """How many previews have ended: while it stays the same, what was looked up is still true."""

    @contextmanager
    def request(self, preview: Preview) -> Iterator[Place]:
        """Have a place for as long as the block lasts. Raises RateLimited."""
        pool = self._pools.get(preview.id) or self._new_pool(preview.id)
        owner = preview.organization_id
        if pool.requests >= self._limits.preview_requests:
            raise self._busy("the preview", self._limits.preview_requests, "preview_requests")
        if self._requests[owner] >= self._limits.preview_requests_per_organization:
            most = self._limits.preview_requests_per_organization
            raise self._busy("the organization's previews", most, "preview_requests_per_organization")
        self._pools[preview.id] = pool
        pool.requests += 1
        self._requests[owner] += 1
        place = Place(self, preview, pool)
        try:
            yield place
        finally:
            place.close()
            pool.requests -= 1
            pool.check_use()
            self._requests[owner] -= 1
            if not self._requests[owner]:
                del self._requests[owner]

    def _new_pool(self, preview_id: str) -> _Pool:
        def forget() -> None:
            if self._pools.get(preview_id) is pool:
                del self._pools[preview_id]

        pool = _Pool(self._limits.preview_connections, forget)
        return pool

    def _busy(self, whose: str, most: int, limit: str) -> RateLimited:
        return RateLimited(f"{most} requests of {whose} are being served ({limit}): come again", retry_after_ms=1_000)

    async def make(self, preview: Preview) -> Connection:
        """Return a new connection; a sleeping machine is woken. Raises PortRefused, and what `Channels.open` raises."""
        caller = Caller(preview.organization_id, preview.created_by, admin=False)
        order = ChannelOrder(argv=("dial", str(preview.port)), tool=True, cwd="/")
        channel = await self._channels.open(caller, preview.machine_id, order)
        try:
            first = await channel.read()
            if not first.startswith(_CONNECTED):
                end = await channel.wait()
                if end.exit_code == _NO_CONNECTION:
                    raise PortRefused(f"nothing listens on port {preview.port} in the machine")
                raise Unavailable(
                    f"port {preview.port} could not be reached: {end.error_message}", retry_after_ms=1_000
                )
            plain = PlainConnection(channel, first[len(_CONNECTED) :])
            if preview.protocol is PreviewProtocol.HTTP:
                return plain
            return await TlsConnection.made(plain)
        except BaseException:
            channel.close()
            raise

    def end(self, preview_id: str) -> None:
        """Cut every connection of a preview: it is over, and that is recorded."""
        self.ends += 1
        pool = self._pools.pop(preview_id, None)
        if pool is not None:
            pool.end()
