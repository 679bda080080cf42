"""The transport that the client uses unless it is given another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx

from dormice.client.errors import APIConnectionError, APITimeoutError
from dormice.client.settings import is_loopback
from dormice.client.transport import Request

_MOST_CONNECTIONS = 100


class AsyncHttpxTransport:
    """An `AsyncTransport` on a connection pool, or on an `httpx.AsyncClient` of the caller's making."""

    def __init__(self, base_url: str, http_client: httpx.AsyncClient | None = None) -> None:
        self._client = http_client or httpx.AsyncClient(
            limits=httpx.Limits(max_connections=_MOST_CONNECTIONS, max_keepalive_connections=_MOST_CONNECTIONS),
            trust_env=not is_loopback(base_url),  # a proxy of the environment cannot reach this host's loopback
        )

    async def send(self, request: Request) -> AsyncHttpxResponse:
        connect, read = request.timeout
        with _our_errors(request.url):
            outgoing = self._client.build_request(
                request.method,
                request.url,
                headers=dict(request.headers),
                content=request.content,
                timeout=httpx.Timeout(connect=connect, pool=connect, read=read, write=read),
            )
            return AsyncHttpxResponse(await self._client.send(outgoing, stream=True))

    async def aclose(self) -> None:
        await self._client.aclose()


class AsyncHttpxResponse:
    """An `AsyncResponse`."""

    def __init__(self, response: httpx.Response) -> None:
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
        await self._response.aclose()


@contextmanager
def _our_errors(url: str) -> Iterator[None]:
    where = url.partition("?")[0]
    try:
        yield
    except httpx.TimeoutException as error:
        raise APITimeoutError(f"no answer in time from {where}") from error
    except httpx.TransportError as error:
        raise APIConnectionError(f"no answer from {where}: {error}") from error
