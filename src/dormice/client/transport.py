"""The seam between the client and the network: a request goes in, a response with a body still to be read comes out.

Three adapters exist: `aiohttp_transport` and `httpx_transport`, which the asynchronous and the synchronous client use
unless they are given another, and `socket_transport`, which the command line uses because it loads thirty times faster.
An adapter raises `APIConnectionError` or `APITimeoutError` and nothing else for what happens on the way;
it neither retries nor follows redirects, and it closes what it opened when the response is closed. Over HTTPS it trusts
the authorities that this host does, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol


class Timeout(NamedTuple):
    """Seconds to wait for the connection, and for each next piece of the answer."""

    connect: float = 5.0
    read: float = 60.0


class Request(NamedTuple):
    """One HTTP request. `url` is absolute."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes
    timeout: Timeout
    pieces: Iterable[bytes] | AsyncIterable[bytes] | None = None
    """The body in place of `content`, sent as it comes; an asynchronous transport takes the asynchronous kind only, and the others the other."""

    def __repr__(self) -> str:
        """Without headers and content: they hold secrets."""
        return f"<Request {self.method} {self.url}>"


class Response(Protocol):
    """An answer. Header names are in lower case."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def read(self) -> bytes: ...
    def chunks(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class Transport(Protocol):
    """Sends requests. `close` ends every connection."""

    def send(self, request: Request) -> Response: ...
    def close(self) -> None: ...


class AsyncResponse(Protocol):
    """An answer. Header names are in lower case."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    async def read(self) -> bytes: ...
    def chunks(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class AsyncTransport(Protocol):
    """Sends requests. `aclose` ends every connection."""

    async def send(self, request: Request) -> AsyncResponse: ...
    async def aclose(self) -> None: ...
