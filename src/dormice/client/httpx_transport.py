"""The transport that the synchronous client uses unless it is given another."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import cast

import httpx

from dormice.client.errors import APIConnectionError, APITimeoutError, ConfigurationError
from dormice.client.settings import is_loopback
from dormice.client.transport import Request

_MOST_CONNECTIONS = 100
_PER_POOL = 8
"""httpx looks at all connections of a pool at every request: with 64 busy ones in one pool a request costs five times as much."""


class HttpxTransport:
    """An `Transport` on connection pools, of which there are more as more is asked for at once, or on an `httpx.Client` of the caller's making."""

    def __init__(self, base_url: str, http_client: httpx.Client | None = None) -> None:
        self._trust_env = not is_loopback(base_url)  # a proxy of the environment cannot reach this host's loopback
        self._most_pools = 1 if http_client is not None else -(-_MOST_CONNECTIONS // _PER_POOL)
        self._lock = threading.Lock()
        self._pools = [_Pool(http_client or self._new_client())]

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Takes a while, so once for all pools. httpx of itself would trust certifi's authorities and not those of this host."""
        return ssl.create_default_context()

    def _new_client(self) -> httpx.Client:
        limits = httpx.Limits(max_connections=_MOST_CONNECTIONS, max_keepalive_connections=_PER_POOL)
        try:
            return httpx.Client(limits=limits, trust_env=self._trust_env, verify=self._tls)
        except (ImportError, ValueError) as error:
            raise ConfigurationError(f"the proxy that the environment names: {error}") from error

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

    def send(self, request: Request) -> HttpxResponse:
        connect, read = request.timeout
        pool = self._enter()
        try:
            with _our_errors(request.url):
                outgoing = pool.client.build_request(
                    request.method,
                    request.url,
                    headers=dict(request.headers),
                    content=request.content if request.pieces is None else cast("Iterable[bytes]", request.pieces),
                    timeout=httpx.Timeout(connect=connect, pool=connect, read=read, write=read),
                )
                response = pool.client.send(outgoing, stream=True)
        except BaseException:
            self._leave(pool)
            raise
        return HttpxResponse(response, lambda: self._leave(pool))

    def close(self) -> None:
        for pool in self._pools:
            pool.client.close()


class _Pool:
    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.busy = 0
        """Requests whose answers are not closed."""


class HttpxResponse:
    """An `Response`. `left` is called once it is closed."""

    def __init__(self, response: httpx.Response, left: Callable[[], None]) -> None:
        self._left: Callable[[], None] | None = left
        self._response = response
        self.status = response.status_code
        self.headers = response.headers  # looks names up without regard to case; its keys are in lower case

    def read(self) -> bytes:
        with _our_errors(str(self._response.url)):
            return self._response.read()

    def chunks(self) -> Iterator[bytes]:
        with _our_errors(str(self._response.url)):
            yield from self._response.iter_bytes()

    def close(self) -> None:
        left, self._left = self._left, None
        try:
            self._response.close()
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
