"""Bytes on the server's port: whatever they are, each answer is a whole one and none a 5xx, and the line comes to an end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Iterator

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from dormice.api.app import create_app
from dormice.api.http import bodies, connection
from tests.api.fakes import KEY, MACHINE_ID, World, finished
from tests.fuzz.budget import fuzzed
from tests.fuzz.hostile import damaged, pieces

PATIENCE_SECONDS = 3.0
EXECUTIONS = f"/v1/machines/{MACHINE_ID}/executions"
PATHS = (
    *(
        "/health",
        "/v1/machines",
        EXECUTIONS,
        f"{EXECUTIONS}/exec-1",
        f"{EXECUTIONS}/exec-1/events",
        "/openapi.json",
        "/nowhere",
    ),
    *(
        f"{EXECUTIONS}/exec-1/output/stdout",
        f"{EXECUTIONS}/exec-1/output",
        f"{EXECUTIONS}/exec-1/stdin",
        "/v1/keys",
        "*",
        "//",
    ),
    *(
        "http://dormice/health",
        f"{EXECUTIONS}/%00/%ff",
        f"/v1/machines/dm-{'x' * 300}",
        "/v1/machines/../../etc/passwd",
    ),
)
QUERIES = (
    "",
    "?limit=1&cursor=b2",
    "?wait_ms=1",
    "?cursor=%ff%00",
    "?limit=-1",
    "?offset=0&eof=true",
    "?encoding=base64",
    "?&&=;",
)
HEADERS = (
    *(
        "Authorization: Bearer " + KEY,
        "x-api-key: " + KEY,
        "Authorization: Basic eA==",
        "Content-Type: application/json",
    ),
    *(
        "Content-Type: text/plain",
        "Idempotency-Key: k",
        "Range: bytes=0-1",
        "Range: bytes=-9,5-",
        "Accept: text/event-stream",
    ),
    *(
        "Expect: 100-continue",
        "Connection: close",
        "Connection: upgrade",
        "Upgrade: websocket",
        "Upgrade: h2c",
        "Host: a",
        "Host: b",
    ),
    *(
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Content-Length: 3",
        "Content-Length: -1",
        "If-Match: 1",
        "TE: trailers",
    ),
    *(
        "Last-Event-ID: 1",
        "X-Dedalus-Org-Id: org-x",
        "Cookie: \xff",
        ": nameless",
        "traceparent: 00-1-2-3",
        "Accept-Encoding: gzip",
    ),
)
BODIES = (
    b"",
    b"{}",
    b'{"command": ["true"]}',
    b'{"command": ["true"], "env": {"A": "\\ud800"}}',
    b"[" * 200,
    b"\xff\xfe",
    b"xyz",
)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "PRI", "TRACE")


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    method, path, query = draw(st.sampled_from(METHODS)), draw(st.sampled_from(PATHS)), draw(st.sampled_from(QUERIES))
    headers = ["Host: dormice", f"x-api-key: {KEY}", *draw(st.lists(st.sampled_from(HEADERS), max_size=4))]
    body = draw(st.sampled_from(BODIES))
    if draw(st.booleans()):
        headers.append(f"Content-Length: {len(body)}")
    elif draw(st.booleans()):
        headers.append("Transfer-Encoding: chunked")
        body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    return f"{method} {path}{query} HTTP/1.1\r\n{chr(13) + chr(10)}".replace("\r\n\r\n", "\r\n").encode() + (
        "\r\n".join(headers).encode("latin-1") + b"\r\n\r\n" + body
    )


class _Complaints(logging.Handler):
    """Collects what went wrong inside."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


@pytest.fixture(name="complaints")
def _complaints() -> Iterator[_Complaints]:
    handler = _Complaints()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.fixture(name="impatient", autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)
    monkeypatch.setattr(bodies, "READ_SECONDS", 0.05)


async def _exchange(port: int, sent: list[bytes]) -> bytes:
    """Send pieces and return what comes up to the end of the line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    with contextlib.suppress(ConnectionError):
        for piece in sent:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(PATIENCE_SECONDS):
            received = await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return received


def _judge(received: bytes) -> None:
    """Take the answers apart. Chunked ones and those to HEAD are left to the other tests: they only begin well."""
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        match = re.match(rb"HTTP/1\.1 ([1-5]\d\d) [^\r\n]*(\r\n|$)", head)
        assert match, received[:200]
        assert not match[1].startswith(b"5"), received[:2_000]
        length = re.search(rb"(?im)^content-length: (\d+)\r?$", head)
        if length is None or match[1] == b"100":
            received = rest if match[1] == b"100" else b""
            continue
        body, received = rest[: int(length[1])], rest[int(length[1]) :]
        if received.startswith(b"HTTP/1.1 ") or not received:
            if b"json" in head and body and len(body) == int(length[1]):
                json.loads(body)
        else:
            return  # no body came: it was HEAD


def test_whatever_comes_on_the_port(complaints: _Complaints) -> None:
    world = World()
    world.executions.add(*finished())
    config = uvicorn.Config(
        create_app(world.services()),
        host="127.0.0.1",
        port=0,
        http=connection.Connection,
        ws="none",
        log_config=None,
        access_log=False,
    )
    config.timeout_keep_alive = 0.05  # type: ignore[assignment] # any number of seconds will do
    server = uvicorn.Server(config)
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda _, context: complaints.found.append(str(context)))
        config.load()
        server.lifespan = config.lifespan_class(config)
        runner.run(server.startup())
        port = server.servers[0].sockets[0].getsockname()[1]

        @fuzzed(examples=120)
        @given(
            pieces(st.lists(requests(), min_size=1, max_size=3).flatmap(lambda all_: damaged(st.just(b"".join(all_)))))
        )
        def check(sent: list[bytes]) -> None:
            _judge(runner.run(_exchange(port, sent)))
            assert complaints.found == []

        check()
        assert b"200 OK" in runner.run(
            _exchange(port, [b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"])
        )
        runner.run(server.shutdown())
