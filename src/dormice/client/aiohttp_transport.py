"""The transport that the asynchronous client uses unless it is given another: a request costs it a fifth of what httpx takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from dormice.client.errors import APIConnectionError, APITimeoutError
from dormice.client.settings import is_loopback
from dormice.client.transport import Request

_MOST_CONNECTIONS = 1000


class AiohttpTransport:
    """An `AsyncTransport` on a connection pool.

    A request for which there is no connection waits until there is one, for as long as it would wait for an answer.
    """

    def __init__(self, base_url: str) -> None:
        self._proxy = _proxy_for(base_url)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request) -> AiohttpResponse:
        if self._session is None:  # made here, because it belongs to the event loop that runs
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_MOST_CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=self._proxy,
            )
        connect, read = request.timeout
        with _our_errors(request.url):
            response = await self._session.request(
                request.method,
                URL(request.url, encoded=True),
                headers=request.headers,
                data=request.content or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(connect=connect + read, sock_connect=connect, sock_read=read),
            )
        return AiohttpResponse(response, request.url)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


class AiohttpResponse:
    """An `AsyncResponse`."""

    def __init__(self, response: aiohttp.ClientResponse, url: str) -> None:
        self._response = response
        self._url = url
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    async def read(self) -> bytes:
        with _our_errors(self._url):
            return await self._response.read()

    async def chunks(self) -> AsyncIterator[bytes]:
        with _our_errors(self._url):
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        self._response.release()


def _proxy_for(base_url: str) -> str | None:
    """The proxy that the environment names, as for httpx. Not left to aiohttp, which would look for `~/.netrc` at every request."""
    url = urlsplit(base_url)
    if is_loopback(base_url) or proxy_bypass(url.netloc):
        return None
    proxies = getproxies()
    return proxies.get(url.scheme) or proxies.get("all")


@contextmanager
def _our_errors(url: str) -> Iterator[None]:
    where = url.partition("?")[0]
    try:
        yield
    except TimeoutError as error:
        raise APITimeoutError(f"no answer in time from {where}") from error
    except aiohttp.ClientResponseError as error:  # its text would say all of the URL
        raise APIConnectionError(f"no answer from {where}: {error.message}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise APIConnectionError(f"no answer from {where}: {error}") from error
