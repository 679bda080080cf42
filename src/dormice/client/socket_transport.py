"""A transport on a bare socket and the parser of httptools: all of it loads in 10 ms, where httpx takes 300 and
`http.client` 40. It does without proxies and connection pools, which a command that runs once has no use for.

One connection is kept for the next request as long as the response before was read to its end. Not for use by
several threads at once.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, cast
from urllib.parse import SplitResult, urlsplit

import httptools

from dormice.client.errors import APIConnectionError, APITimeoutError
from dormice.client.transport import Request

_PIECE: Final = 65_536


class SocketTransport:
    """A `Transport`."""

    def __init__(self) -> None:
        self._idle: dict[str, socket.socket] = {}

    def send(self, request: Request) -> SocketResponse:
        url = urlsplit(request.url)
        origin = f"{url.scheme}://{url.netloc}"
        with _our_errors(origin):
            connection = self._idle.pop(origin, None) or _connect(url, request.timeout.connect)
        try:
            connection.settimeout(request.timeout.read)
            with _our_errors(origin):
                connection.sendall(_head(request, url) + request.content)
            early = None if request.pieces is None else _send_pieces(connection, request, origin)
            with _our_errors(origin):
                return SocketResponse(self, origin, connection, early)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        while self._idle:
            self._idle.popitem()[1].close()

    def keep(self, origin: str, connection: socket.socket) -> None:
        """Take back a connection whose response was read to its end."""
        if origin in self._idle:
            connection.close()
        else:
            self._idle[origin] = connection


class SocketResponse:
    """A `Response`. `early`: what has come of it already, None if all of the request was sent before that."""

    def __init__(self, transport: SocketTransport, origin: str, connection: socket.socket, early: bytes | None) -> None:
        self._transport, self._origin, self._connection = transport, origin, connection
        self._receipt = _Receipt()
        self._parser = self._receipt.parser = httptools.HttpResponseParser(self._receipt)
        self._cut_short = early is not None
        if early:
            self._parser.feed_data(early)
        while not self._receipt.head_complete:
            self._receive()
        self.status = self._parser.get_status_code()
        self.headers = self._receipt.headers

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        while True:
            if self._receipt.body:
                yield self._receipt.body.pop(0)
            elif self._receipt.complete:
                return
            else:
                with _our_errors(self._origin):
                    self._receive()

    def close(self) -> None:
        if self._receipt.may_stay and not self._cut_short:
            self._transport.keep(self._origin, self._connection)
        else:
            self._connection.close()

    def _receive(self) -> None:
        data = self._connection.recv(_PIECE)
        if data:
            self._parser.feed_data(data)
        elif self._receipt.head_complete and not self.headers.keys() & {"content-length", "transfer-encoding"}:
            self._receipt.complete = True  # a body without a length ends with its connection
        else:
            raise ConnectionError("the connection was cut off")


class _Receipt:
    """What the parser has found so far; the method names are the parser's."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.head_complete = False
        self.complete = False
        self.parser: httptools.HttpResponseParser | None = None
        self.may_stay = False
        """Whether the connection can be used again: the parser knows it at the end of the message only."""

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.head_complete = True

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        self.complete = True
        self.may_stay = self.parser is not None and self.parser.should_keep_alive()


def _connect(url: SplitResult, timeout: float) -> socket.socket:
    host = url.hostname or ""
    connection = socket.create_connection((host, url.port or (443 if url.scheme == "https" else 80)), timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if url.scheme == "https":
        import ssl  # noqa: PLC0415 - slow to load

        return ssl.create_default_context().wrap_socket(connection, server_hostname=host)
    return connection


def _head(request: Request, url: SplitResult) -> bytes:
    target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    headers = {"host": url.netloc.rpartition("@")[2], **request.headers}
    if request.pieces is not None:
        if "content-length" not in headers:
            headers["transfer-encoding"] = "chunked"
    elif request.content or request.method != "GET":
        headers["content-length"] = str(len(request.content))
    lines = [f"{request.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _send_pieces(connection: socket.socket, request: Request, origin: str) -> bytes | None:
    """Send them. What they raise is the caller's own.

    A server that wants no more of it says why: then returns what has come of its answer so far, else None.
    """
    chunked = "content-length" not in request.headers
    for piece in filter(None, cast("Iterable[bytes]", request.pieces)):
        early = _heard(connection)
        if early is not None:
            return early
        if not _sent(connection, b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece, origin):
            return b""
    return b"" if chunked and not _sent(connection, b"0\r\n\r\n", origin) else None


def _sent(connection: socket.socket, data: bytes, origin: str) -> bool:
    """Send it. False if the server reads no more."""
    with _our_errors(origin):
        try:
            connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True


def _heard(connection: socket.socket) -> bytes | None:
    """What the server has said, empty if it has left; None if it is silent. Does not wait."""
    seconds = connection.gettimeout()
    connection.settimeout(0)
    try:
        return connection.recv(_PIECE)
    except OSError:  # mostly that there is nothing; what else it may be, sending finds out
        return None
    finally:
        connection.settimeout(seconds)


@contextmanager
def _our_errors(where: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise APITimeoutError(f"no answer in time from {where}") from error
    except OSError as error:
        raise APIConnectionError(f"no answer from {where}: {error.strerror or error}") from error
    except httptools.HttpParserError as error:
        raise APIConnectionError(f"{where} does not speak HTTP: {error}") from error
