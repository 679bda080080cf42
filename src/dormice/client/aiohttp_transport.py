"""The transport that the asynchronous client uses unless it is given another: a request costs it a fifth of what httpx takes."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from yarl import URL

from dormice.client.errors import APIConnectionError, APITimeoutError, ConfigurationError
from dormice.client.settings import is_loopback
from dormice.client.transport import Request

_MOST_CONNECTIONS = 1000
_PIECE = 65_536


class AiohttpTransport:
    """An `AsyncTransport` on a connection pool, of which each event loop that it is used in has its own.

    A request for which there is no connection waits until there is one, for as long as it would wait for an answer.
    """

    def __init__(self, base_url: str) -> None:
        self._proxy = _proxy_for(base_url)
        self._tls: ssl.SSLContext | bool = (
            ssl.create_default_context() if urlsplit(base_url).scheme == "https" else True
        )
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}

    async def send(self, request: Request) -> AiohttpResponse:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop) or await self._begin(loop)
        connect, read = request.timeout
        headers, content = request.headers, request.content
        with _our_errors(request.url):
            async with asyncio.timeout(None) as deadline:
                body: bytes | _Upload | None = content or None
                if request.pieces is not None:
                    body = _Upload(_Patient(cast("AsyncIterable[bytes]", request.pieces), read, deadline))
                elif len(content) > _PIECE:
                    headers = {**headers, "content-length": str(len(content))}
                    body = _Upload(_Patient(_cut(content), read, deadline))
                response = await session.request(
                    request.method,
                    URL(request.url, encoded=True),
                    headers=headers,
                    data=body,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(connect=connect + read, sock_connect=connect, sock_read=read),
                )
        return AiohttpResponse(response, request.url)

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
        await self._leave_ended_loops()
        session = self._sessions[loop] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_MOST_CONNECTIONS, ssl=self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=self._proxy,
        )
        return session

    async def _leave_ended_loops(self) -> None:
        for loop in [loop for loop in self._sessions if loop.is_closed()]:
            await self._sessions.pop(loop).close()

    async def aclose(self) -> None:
        """End the connections of the running event loop."""
        await self._leave_ended_loops()
        session = self._sessions.get(asyncio.get_running_loop())
        if session is not None:
            await session.close()
            await asyncio.sleep(0)  # connections that were closed end in the loop's next turn


class _Upload(aiohttp.AsyncIterablePayload):
    """A large body. What of it is on its way when the answer comes is dropped: aiohttp itself would keep the connection until it is taken."""

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        try:
            await super().write_with_length(writer, content_length)
        except asyncio.CancelledError:
            if isinstance(writer, StreamWriter) and writer.transport is not None:
                writer.transport.abort()
            raise


class _Patient:
    """Pieces of a body, each of which must be taken within so many seconds: aiohttp itself would wait for ever."""

    def __init__(self, pieces: AsyncIterable[bytes], seconds: float, deadline: asyncio.Timeout) -> None:
        self._pieces = pieces
        self._seconds = seconds
        self._deadline = deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        async for piece in self._pieces:
            self._wait_until(loop.time() + self._seconds)
            yield piece
            self._wait_until(None)

    def _wait_until(self, moment: float | None) -> None:
        with suppress(RuntimeError):  # nobody waits: the answer came before all was sent
            self._deadline.reschedule(moment)


async def _cut(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _PIECE):
        yield content[start : start + _PIECE]


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
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy is None:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if (scheme := urlsplit(proxy).scheme) not in {"http", "https"}:
        raise ConfigurationError(f"the proxy that the environment names must be one of http or https, not {scheme}")
    return proxy


@contextmanager
def _our_errors(url: str) -> Iterator[None]:
    where = url.partition("?")[0]
    try:
        yield
    except TimeoutError as error:
        raise APITimeoutError(f"no answer in time from {where}") from error
    except aiohttp.ClientHttpProxyError as error:
        raise APIConnectionError(f"no way to {where}: the proxy answers {error.status} {error.message}") from error
    except aiohttp.ClientResponseError as error:  # its text would say all of the URL
        raise APIConnectionError(f"no answer from {where}: {error.message}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise APIConnectionError(f"no answer from {where}: {_why(error)}") from error


def _why(error: Exception) -> str:
    """The system's word for what it did not do; the library's own says how it tried."""
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionError):
        return os.strerror(error.os_error.errno or 0)
    return str(error)
