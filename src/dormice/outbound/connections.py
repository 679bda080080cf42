"""Connections to servers that others have named: a bounded number to each, kept open for a short while after its last answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from socket import SOCK_STREAM
from typing import Final

from dormice.outbound.http_connection import HttpConnection
from dormice.outbound.targets import Address, Policy, Target

CONNECTIONS_PER_ORIGIN: Final = 8
IDLE_SECONDS: Final = 3.0
"""Less than the 5 s after which common servers (uvicorn, Node) close an idle connection: ours has to be the first."""
_ADDRESSES_TRIED: Final = 4
LookUp = Callable[[str], Awaitable[list[Address]]]


async def look_up(host: str) -> list[Address]:
    """Ask the host's resolver for the addresses of a name. Raises OSError when there is none."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, None, type=SOCK_STREAM)
    return [ip_address(answer[4][0]) for answer in answers]


class Connections:
    """The connections to all of them, by the origin of their URL."""

    def __init__(self, policy: Policy, look_up: LookUp, *, per_origin: int = CONNECTIONS_PER_ORIGIN) -> None:
        self._policy = policy
        self._per_origin = per_origin
        self._look_up = look_up
        self._lanes: dict[tuple[bool, str], _Lane] = {}
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    @asynccontextmanager
    async def borrow(self, target: Target) -> AsyncIterator[HttpConnection]:
        """Lend a connection, waiting for one that is free. Raises OSError when there is no way there."""
        key = (target.tls, target.authority)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key, self._per_origin)
        lane.users += 1
        try:
            async with lane.slots:
                connection = lane.take() or await self._connect(target)
                lane.lent.add(connection)
                try:
                    yield connection
                finally:
                    lane.lent.discard(connection)
                    self._take_back(lane, connection)
        finally:
            lane.users -= 1
            self._forget_if_unused(lane)

    async def close(self) -> None:
        """Close all connections; requests that wait for an answer get none."""
        self._closed = True
        for lane in list(self._lanes.values()):
            lane.close()
            self._forget_if_unused(lane)
        await asyncio.sleep(0)  # the loop lets go of a closed connection one turn later

    async def _connect(self, target: Target) -> HttpConnection:
        loop = asyncio.get_running_loop()
        failure: OSError = PermissionError(f"{target.host} has no address that this server may connect to")
        for address in (await self._addresses(target))[:_ADDRESSES_TRIED]:
            if self._closed:
                raise ConnectionAbortedError("the server is stopping")
            try:
                _, connection = await loop.create_connection(
                    lambda: HttpConnection(self._policy.answer_bytes),
                    str(address),  # not the name: what was looked up is what was judged
                    target.port,
                    ssl=await self._tls_context() if target.tls else None,
                    server_hostname=target.host if target.tls else None,
                )
            except OSError as error:
                failure = error
            else:
                return connection
        raise failure

    async def _addresses(self, target: Target) -> list[Address]:
        """List where to connect, IPv4 first: workers of the foreign SDK listen on nothing else."""
        found = [target.literal] if target.literal is not None else await self._look_up(target.host)
        allowed = [address for address in dict.fromkeys(found) if self._policy.allows(target.host, address)]
        return sorted(allowed, key=lambda address: address.version)

    async def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)  # reads all certificates of the host
        return self._tls

    def _take_back(self, lane: _Lane, connection: HttpConnection) -> None:
        if connection.reusable and not self._closed:
            loop = asyncio.get_running_loop()
            lane.idle[connection] = loop.call_later(IDLE_SECONDS, self._expire, lane, connection)
        else:
            connection.close()

    def _expire(self, lane: _Lane, connection: HttpConnection) -> None:
        del lane.idle[connection]
        connection.close()
        self._forget_if_unused(lane)

    def _forget_if_unused(self, lane: _Lane) -> None:
        if not lane.users and not lane.idle:
            self._lanes.pop(lane.key, None)


class _Lane:
    """The connections to one origin."""

    def __init__(self, key: tuple[bool, str], most: int) -> None:
        self.key = key
        self.slots = asyncio.Semaphore(most)
        self.users = 0
        self.lent: set[HttpConnection] = set()
        self.idle: dict[HttpConnection, asyncio.TimerHandle] = {}

    def take(self) -> HttpConnection | None:
        """Take the connection that was used last, dropping those that have ended meanwhile."""
        while self.idle:
            connection, expiry = self.idle.popitem()
            expiry.cancel()
            if connection.reusable:
                return connection
            connection.close()
        return None

    def close(self) -> None:
        for expiry in self.idle.values():
            expiry.cancel()
        for connection in (*self.idle, *self.lent):
            connection.close()
        self.idle.clear()
