# Generated from _async/httpx_transport.py by scripts/generate_sync_client.py; change that and run it again.
"""The transport that the client uses unless it is given another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from dormice.client.errors import APIConnectionError, APITimeoutError
from dormice.client.settings import is_loopback
from dormice.client.transport import Request

_MOST_CONNECTIONS = 100


class HttpxTransport:
    """An `Transport` on a connection pool, or on an `httpx.Client` of the caller's making."""

    def __init__(self, base_url: str, http_client: httpx.Client | None = None) -> None:
        self._client = http_client or httpx.Client(
            limits=httpx.Limits(max_connections=_MOST_CONNECTIONS, max_keepalive_connections=_MOST_CONNECTIONS),
            trust_env=not is_loopback(base_url),  # a proxy of the environment cannot reach this host's loopback
        )

    def send(self, request: Request) -> HttpxResponse:
        connect, read = request.timeout
        with _our_errors(request.url):
            outgoing = self._client.build_request(
                request.method,
                request.url,
                headers=dict(request.headers),
                content=request.content,
                timeout=httpx.Timeout(connect=connect, pool=connect, read=read, write=read),
            )
            return HttpxResponse(self._client.send(outgoing, stream=True))

    def close(self) -> None:
        self._client.close()


class HttpxResponse:
    """An `Response`."""

    def __init__(self, response: httpx.Response) -> None:
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
        self._response.close()


@contextmanager
def _our_errors(url: str) -> Iterator[None]:
    where = url.partition("?")[0]
    try:
        yield
    except httpx.TimeoutException as error:
        raise APITimeoutError(f"no answer in time from {where}") from error
    except httpx.TransportError as error:
        raise APIConnectionError(f"no answer from {where}: {error}") from error
