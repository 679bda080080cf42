"""A client that reads nothing is let go of, and whoever sends to it is told; one that is refused leaves no error in the log."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import uvicorn

from dormice.api.http.errors import Answer
from dormice.api.http.websocket import WebSocket
from dormice.api.http.websocket_connection import WebSocketConnection

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def test_a_client_that_never_reads_is_let_go_of() -> None:
    told: asyncio.Future[type[BaseException]] = asyncio.get_running_loop().create_future()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope
        websocket = WebSocket(receive, send)
        await websocket.accept()
        try:
            while True:
                await websocket.send("x" * 65_536)
        except OSError as error:
            told.set_result(type(error))
            raise

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, ws=WebSocketConnection, ws_ping_interval=0.1, ws_ping_timeout=0.2, log_config=None, lifespan="off"
    )
    server = uvicorn.Server(config)
    client = socket.create_connection(listener.getsockname())
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listener]))
        client.sendall(HANDSHAKE)
        async with asyncio.timeout(20):
            await told
        server.should_exit = True
    client.close()


async def test_a_refusal_is_answered_and_is_no_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope
        await WebSocket(receive, send).refuse(Answer(401, "text/plain", {"www-authenticate": "Bearer"}, b"no key"))

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, ws=WebSocketConnection, log_config=None, lifespan="off"))
    async with asyncio.TaskGroup() as group, asyncio.timeout(20):
        group.create_task(server.serve(sockets=[listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(HANDSHAKE)
        answer = await reader.read()
        writer.close()
        server.should_exit = True
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b"www-authenticate: Bearer" in head
    assert body == b"no key"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
