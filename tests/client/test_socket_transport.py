"""The transport of the command line: one connection for request after request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from typing import ClassVar

import pytest

from dormice.client.socket_transport import SocketTransport
from dormice.client.transport import Request, Timeout


class Counted(ThreadingHTTPServer):
    daemon_threads = True
    connections = 0

    def process_request(self, request: object, client_address: object) -> None:
        self.connections += 1
        super().process_request(request, client_address)  # type: ignore[arg-type] # as it came


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    closes: ClassVar[bool] = False

    def do_GET(self) -> None:
        body = b"hello"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if self.path == "/last":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        """Refuse it unread, or read on without an answer."""
        with suppress(ConnectionError):
            if self.path == "/full":
                self.send_response(409)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"full")
            while self.rfile.read1(65_536):
                pass

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


@pytest.fixture
def server() -> Iterator[Counted]:
    with Counted(("127.0.0.1", 0), Answers) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(transport: SocketTransport, server: Counted, path: str = "/") -> bytes:
    host, port = server.server_address[:2]
    url = f"http://{host!s}:{port}{path}"
    response = transport.send(Request("GET", url, {}, b"", Timeout(5, 5)))
    try:
        return response.read()
    finally:
        response.close()


def test_a_connection_is_used_again(server: Counted) -> None:
    transport = SocketTransport()
    assert [ask(transport, server) for _ in range(3)] == [b"hello"] * 3
    transport.close()
    assert server.connections == 1


def test_a_connection_that_the_server_ends_is_not_used_again(server: Counted) -> None:
    transport = SocketTransport()
    assert ask(transport, server, "/last") == ask(transport, server) == b"hello"
    transport.close()
    assert server.connections == 2


def test_what_the_source_of_a_body_raises_is_no_fault_of_the_server(server: Counted) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"some"
        raise PermissionError(13, "Permission denied", "shut")

    host, port = server.server_address[:2]
    transport = SocketTransport()
    with pytest.raises(PermissionError, match="shut"):
        transport.send(
            Request("PUT", f"http://{host!s}:{port}/", {"content-length": "9"}, b"", Timeout(5, 5), pieces())
        )
    transport.close()


@pytest.mark.parametrize("headers", [{}, {"content-length": str(1 << 40)}], ids=["chunked", "with a length"])
def test_nothing_more_is_sent_once_the_answer_is_there(server: Counted, headers: dict[str, str]) -> None:
    """The source would go on for ever."""
    host, port = server.server_address[:2]
    url = f"http://{host!s}:{port}/full"
    transport = SocketTransport()
    response = transport.send(Request("PUT", url, headers, b"", Timeout(5, 5), repeat(bytes(65_536), 100_000)))
    try:
        assert (response.status, response.read()) == (409, b"full")
    finally:
        response.close()
    assert ask(transport, server) == b"hello"
    transport.close()
    assert server.connections == 2, "what is behind half a request is no request"
