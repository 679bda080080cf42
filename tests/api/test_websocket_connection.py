"""A client that reads nothing is let go of, and whoever sends to it is told."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn

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
