"""An endpoint of our own: a real HTTP server that keeps what it was sent and answers as it is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.wait import wait_until


@dataclass(frozen=True)
class Request:
    """What came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The document."""
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]

    def signed_with(self, secret: str) -> bool:
        """Check the signature as Standard Webhooks says."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        content = f"{self.event_id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        return expected in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """The endpoint."""

    port: int = 0
    status: int = 200
    location: str = ""
    requests: list[Request] = field(default_factory=list)
    taken: int = 0
    """How many have come, answered or not."""
    hold: threading.Event | None = None
    """Set: nothing is answered until it is."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?to=us"

    def of(self, kind: str) -> list[Request]:
        """Return the requests that tell of such events."""
        return [request for request in list(self.requests) if request.event["type"] == kind]

    def wait_for(self, kind: str, count: int = 1) -> list[Request]:
        """Wait until so many have come."""
        wait_until(lambda: len(self.of(kind)) >= count, 20, f"{count} of {kind} in {self.requests}")
        return self.of(kind)


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """Run an endpoint."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.taken += 1
            if receiver.hold is not None:
                receiver.hold.wait(60)
            receiver.requests.append(Request(self.path, headers, body))
            self.send_response(receiver.status)
            if receiver.location:
                self.send_header("location", receiver.location)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its own name
            pass

    class Server(ThreadingHTTPServer):
        allow_reuse_address = True
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Server(("127.0.0.1", port), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        if receiver.hold is not None:
            receiver.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
