"""Exchanges when both sides do something at once: the port is played by a scripted node, so that the order is fixed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11

from dormice.api.previews.addresses import Target
from dormice.api.previews.exchange import Exchange
from dormice.api.previews.socket_exchange import SocketExchange
from dormice.domain.execution import Stream
from dormice.domain.preview import Preview
from dormice.engine.orders import PreviewOrder
from dormice.engine.port_connections import PortConnections
from dormice.engine.stdin import CREDIT_BYTES
from dormice.protocol import node as wire
from tests.engine.scripted_node import MovedClock, ScriptedNode, serving

TARGET = Target("pv", b"/", "", "http://h")
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Port:
    """What listens on the port."""

    def __init__(self, node: ScriptedNode, start: wire.StartExecution) -> None:
        self._node, self._start, self._said = node, start, 0

    def say(self, data: bytes) -> None:
        self._node.say(
            wire.Output(self._start.machine_id, self._start.execution, Stream.STDOUT.value, self._said, data)
        )
        self._said += len(data)

    async def hear(self) -> bytes:
        return (await self._node.hear(wire.WriteStdin)).data

    async def shake_hands(self) -> None:
        asked = (await self.hear()).split(b"\r\n")
        (key,) = [line.split(b": ")[1] for line in asked if line.lower().startswith(b"sec-websocket-key:")]
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        self.say(
            b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            + accept
            + b"\r\n\r\n"
        )


class Client:
    """The client's side of it."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.heard: list[dict[str, Any]] = []
        self.answer: dict[str, Any] | None = None
        """What it says to a message before that is taken for sent."""

    async def receive(self) -> Any:
        said = await self.says.get()
        self.says.task_done()
        return said

    async def send(self, message: Any) -> None:
        self.heard.append(message)
        if message["type"] == "websocket.send" and self.answer is not None:
            self.says.put_nowait(self.answer)
            await self.says.join()


@asynccontextmanager
async def _preview(tmp_path: Path) -> AsyncIterator[tuple[PortConnections, Preview, ScriptedNode]]:
    async with serving(tmp_path, MovedClock()) as server, asyncio.timeout(20):
        node = await server.node()
        machine, _ = await server.machine(node)
        previews = server.engine.previews
        preview = await previews.create(server.caller, machine.id, PreviewOrder(port=80), None)
        yield previews.connections, preview, node


async def _dialled(node: ScriptedNode) -> Port:
    """Have the guest connect to the port."""
    start = await node.hear(wire.StartExecution)
    node.say(wire.ExecutionStarted(start.machine_id, start.execution, 1))
    port = Port(node, start)
    port.say(b"+")
    return port


async def test_who_talks_while_the_port_closes_is_told_why_it_is_closed(tmp_path: Path) -> None:
    client = Client()
    client.says.put_nowait({"type": "websocket.connect"})
    client.answer = {"type": "websocket.receive", "text": "too late"}
    request = h11.Request(method="GET", target=b"/", headers=[(b"host", b"h")])
    async with _preview(tmp_path) as (connections, preview, node), asyncio.TaskGroup() as group:
        with connections.request(preview) as place:
            exchange = SocketExchange(place, TARGET, request, [], most_bytes=1_000, patience_seconds=10)
            run = group.create_task(exchange.run(client.receive, client.send))
            port = await _dialled(node)
            await port.shake_hands()
            port.say(b"\x81\x02hi" + b"\x88\x02" + (4000).to_bytes(2, "big"))
            await run
    assert client.heard[1:] == [
        {"type": "websocket.send", "text": "hi"},
        {"type": "websocket.close", "code": 4000, "reason": ""},
    ]


async def test_a_connection_that_lacks_the_end_of_a_request_is_not_used_again(tmp_path: Path) -> None:
    client = Client()
    request = h11.Request(method="POST", target=b"/", headers=[(b"host", b"h"), (b"transfer-encoding", b"chunked")])
    async with _preview(tmp_path) as (connections, preview, node), asyncio.TaskGroup() as group:
        with connections.request(preview) as place:
            exchange = Exchange(place, TARGET, request, has_body=True, patience_seconds=10)
            scope: Any = {}
            run = group.create_task(exchange.run(scope, client.receive, client.send))
            port = await _dialled(node)
            room = CREDIT_BYTES - len(await port.hear())
            body = bytes(room - len(f"{room:x}\r\n\r\n"))  # after which there is no room for the end
            assert len(f"{len(body):x}") == len(f"{room:x}")
            client.says.put_nowait({"type": "http.request", "body": body, "more_body": False})
            await client.says.join()
            port.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await run
        assert client.heard[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
        with connections.request(preview) as place:
            connecting = group.create_task(place.connect())
            await _dialled(node)
            _, used = await connecting
            assert not used
