"""The transport that the client uses unless it is given another."""

from __future__ import annotations

import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

import httpx

from dormice.client.errors import APIConnectionError, APITimeoutError
from dormice.client.settings import is_loopback
from dormice.client.transport import Request

_MOST_CONNECTIONS = 100
_PER_POOL = 8
"""httpx looks at all connections of a pool at every request: with 64 busy ones in one pool a request costs five times as much."""


class AsyncHttpxTransport:
    """An `AsyncTransport` on connection pools, of which there are more as more is asked for at once, or on an `httpx.AsyncClient` of the caller's making."""

    def __init__(self, base_url: str, http_client: httpx.AsyncClient | None = None) -> None:
        self._trust_env = not is_loopback(base_url)  # a proxy of the environment cannot reach this host's loopback
        self._most_pools = 1 if http_client is not None else -(-_MOST_CONNECTIONS // _PER_POOL)
        self._lock = threading.Lock()
        self._pools = [_Pool(http_client or self._new_client())]

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx.create_ssl_context(trust_env=self._trust_env)  # takes a while, so once for all pools

    def _new_client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=_MOST_CONNECTIONS, max_keepalive_connections=_PER_POOL)
        return httpx.AsyncClient(limits=limits, trust_env=self._trust_env, verify=self._tls)

    def _enter(self) -> _Pool:
        with self._lock:
            pool = min(self._pools, key=lambda one: one.busy)
            if pool.busy >= _PER_POOL and len(self._pools) < self._most_pools:
                pool = _Pool(self._new_client())
                self._pools.append(pool)
            pool.busy += 1
        return pool

    def _leave(self, pool: _Pool) -> None:
        with self._lock:
            pool.busy -= 1

    async def send(self, request: Request) -> AsyncHttpxResponse:
        connect, read = request.timeout
        pool = self._enter()
        try:
            with _our_errors(request.url):
                outgoing = pool.client.build_request(
                    request.method,
                    request.url,
                    headers=dict(request.headers),
                    content=request.content,
                    timeout=httpx.Timeout(connect=connect, pool=connect, read=read, write=read),
                )
                response = await pool.client.send(outgoing, stream=True)
        except BaseException:
            self._leave(pool)
            raise
        return AsyncHttpxResponse(response, lambda: self._leave(pool))

    async def aclose(self) -> None:
        for pool in self._pools:
            await pool.client.aclose()


class _Pool:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.busy = 0
        """Requests whose answers are not closed."""


class AsyncHttpxResponse:
    """An `AsyncResponse`. `left` is called once it is closed."""

    def __init__(self, response: httpx.Response, left: Callable[[], None]) -> None:
        self._left: Callable[[], None] | None = left
        self._response = response
        self.status = response.status_code
        self.headers = response.headers  # looks names up without regard to case; its keys are in lower case

    async def read(self) -> bytes:
        with _our_errors(str(self._response.url)):
            return await self._response.aread()

    async def chunks(self) -> AsyncIterator[bytes]:
        with _our_errors(str(self._response.url)):
            async for chunk in self._response.aiter_bytes():
                yield chunk

    async def aclose(self) -> None:
        left, self._left = self._left, None
        try:
            await self._response.aclose()
        finally:
            if left is not None:
                left()


@contextmanager
def _our_errors(url: str) -> Iterator[None]:
    where = url.partition("?")[0]
    try:
        yield
    except httpx.TimeoutException as error:
        raise APITimeoutError(f"no answer in time from {where}") from error
    except httpx.TransportError as error:
        raise APIConnectionError(f"no answer from {where}: {error}") from error
