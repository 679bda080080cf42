"""A real server on loopback: slow, silent, greedy and vanishing clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from dormice.api.app import create_app
from dormice.api.http import bodies, connection
from dormice.domain.execution import ExecutionState, Stream
from tests.api.fakes import KEY, MACHINE_ID, World, chunk, finished, lifecycle, new_execution, new_machine
from tests.wait import wait_until_async

EXECUTIONS = f"/v1/machines/{MACHINE_ID}/executions"
HEAD = f"Host: dormice\r\nAuthorization: Bearer {KEY}\r\nIdempotency-Key: k\r\nContent-Type: application/json\r\n"


@dataclass
class Served:
    """A running server and its services."""

    world: World
    port: int
    server: uvicorn.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def exchange(self, sent: bytes) -> bytes:
        """Send bytes and return all that comes until the server closes."""
        reader, writer = await self.connect()
        writer.write(sent)
        received = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return received


@pytest.fixture
async def served(world: World) -> AsyncIterator[Served]:
    config = uvicorn.Config(
        create_app(world.services()),
        host="127.0.0.1",
        port=0,
        http=connection.Connection,
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server._serve())
        await until(lambda: server.started, "the server listens")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Served(world, port, server)
        server.should_exit = True
        await serving


async def until(condition: Callable[[], bool], describe: str) -> None:
    """Wait for a condition that holds without awaiting anything."""

    async def holds() -> bool:
        return condition()

    await wait_until_async(holds, 10, describe)


def answers(received: bytes) -> tuple[int, dict[str, str], Any]:
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, json.loads(body) if body else None


def problem(received: bytes, status: int) -> dict[str, Any]:
    found, headers, body = answers(received)
    assert found == status, received
    assert headers["content-type"] == "application/problem+json"
    assert body["status"] == status
    return dict(body)


async def test_an_announced_body_beyond_the_limit_is_refused_before_it_is_sent(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(f"POST {EXECUTIONS} HTTP/1.1\r\n{HEAD}Content-Length: 999999999999999999999\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    # What no parser takes for a length is refused as such, a mere giant by its size.
    assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
    writer.close()
    reader, writer = await served.connect()
    writer.write(f"POST {EXECUTIONS} HTTP/1.1\r\n{HEAD}Content-Length: 999999999\r\n\r\n".encode())
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_client_that_sends_all_of_a_refused_body_still_reads_the_answer(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.url, headers={"x-api-key": KEY, "Idempotency-Key": "k"}) as client:
        refused = await client.post(EXECUTIONS, content=b"x" * (8 << 20))
        assert refused.status_code == 413
        assert (await client.get("/health")).status_code == 200


async def test_an_endless_chunked_body_is_cut_off(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(f"POST {EXECUTIONS} HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    for _ in range(20):
        writer.write(piece)
        await writer.drain()
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_body_that_does_not_come_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "READ_SECONDS", 0.2)
    received = await served.exchange(f"POST {EXECUTIONS} HTTP/1.1\r\n{HEAD}Content-Length: 9\r\n\r\n{{".encode())
    problem(received, 408)


async def test_a_head_that_does_not_come_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    problem(await served.exchange(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "), 408)
    assert await served.exchange(b"") == b""


async def test_a_second_head_on_a_connection_is_bounded_too(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = await served.connect()
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"healthy")
    await reader.readexactly(2)
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    writer.write(b"GET /hea")
    problem(await asyncio.wait_for(reader.read(), 10), 408)
    writer.close()


async def test_an_endless_head_is_refused(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ")
    opened = served.server.server_state.connections
    await until(lambda: any(vars(one).get("_in_head") for one in opened), "the head has begun")
    writer.write(b"x" * (connection.HEAD_BYTES + 1))
    received = await asyncio.wait_for(reader.read(), 10)
    problem(received, 431)
    writer.close()


@pytest.mark.parametrize(
    "sent", [b"\0\0\0\0\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"NOPE\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"]
)
async def test_what_is_no_http_is_a_problem_too(served: Served, sent: bytes) -> None:
    problem(await served.exchange(sent), 400)


@pytest.mark.parametrize(
    "coding", ["xchunked", "identity", "gzip, chunked", "gzip\r\nTransfer-Encoding: chunked", "chunked, gzip", ""]
)
async def test_a_transfer_coding_other_than_chunked_is_refused_before_the_body(served: Served, coding: str) -> None:
    head = f"POST {EXECUTIONS} HTTP/1.1\r\n{HEAD}Transfer-Encoding: {coding}\r\n\r\n"
    problem(await served.exchange(head.encode()), 400)
    problem(await served.exchange(f"{head}0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n".encode()), 400)
    assert not served.world.executions.records


async def test_a_refused_coding_names_the_one_that_may_be_used(served: Served) -> None:
    sent = f"POST {EXECUTIONS} HTTP/1.1\r\n{HEAD}Transfer-Encoding: gzip, chunked\r\n\r\n"
    assert "Transfer-Encoding must be chunked" in problem(await served.exchange(sent.encode()), 400)["detail"]


@pytest.mark.parametrize("coding", ["chunked", "Chunked"])
async def test_a_chunked_body_is_taken(served: Served, coding: str) -> None:
    body = b'{"command": ["true"]}'
    head = f"POST {EXECUTIONS} HTTP/1.1\r\n{HEAD}Connection: close\r\nTransfer-Encoding: {coding}\r\n\r\n"
    sent = head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert answers(await served.exchange(sent))[0] == 200


async def test_an_upgrade_is_served_as_what_it_is(served: Served) -> None:
    sent = b"GET /nope HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    problem(await served.exchange(sent), 404)


async def test_beyond_the_most_connections_a_client_is_told_to_come_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 0)
    status, headers, body = answers(await served.exchange(b""))
    assert (status, body["error_code"]) == (503, "DEPENDENCY_UNAVAILABLE")
    assert headers["retry-after-ms"] == "1000"


async def test_silent_connections_make_room_for_requests_and_streams_go_on(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 4
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", most)
    running = new_execution(state=ExecutionState.RUNNING)
    served.world.executions.add(running, [lifecycle(1, ExecutionState.RUNNING)])
    reader, writer = await served.connect()
    writer.write(f"GET {EXECUTIONS}/exec-1/events HTTP/1.1\r\n{HEAD}Accept: text/event-stream\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"running"), 10)
    silent = [await served.connect() for _ in range(3 * most)]
    async with httpx.AsyncClient(base_url=served.url, headers={"x-api-key": KEY}) as client:
        assert (await client.get("/v1/limits")).status_code == 200
        told = [await asyncio.wait_for(one.read(), 10) for one, _ in silent[: 2 * most]]
        assert {answers(one)[0] for one in told} == {503}
        assert (await client.get("/v1/limits")).status_code == 200
        ended = new_execution(state=ExecutionState.SUCCEEDED)
        await served.world.executions.grow(ended, [lifecycle(2, ExecutionState.SUCCEEDED)])
        assert b"succeeded" in await asyncio.wait_for(reader.readuntil(b"id: 2"), 10) + await reader.read(200)
    for _, one in [*silent, (reader, writer)]:
        one.close()


async def test_an_answer_that_nobody_reads_makes_room_too(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1 << 10)
    opened = served.server.server_state.connections
    writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
    await until(lambda: any(one.transport.get_write_buffer_size() for one in opened), "it does not fit any more")
    async with httpx.AsyncClient(base_url=served.url) as client:
        assert (await client.get("/health")).status_code == 200
    await until(lambda: len(opened) <= 1, "the other one is gone")
    writer.close()
    del reader


async def test_a_reader_that_goes_away_ends_its_stream(served: Served) -> None:
    running = new_execution(state=ExecutionState.RUNNING)
    served.world.executions.add(running, [lifecycle(1, ExecutionState.RUNNING)])
    reader, writer = await served.connect()
    writer.write(f"GET {EXECUTIONS}/exec-1/events HTTP/1.1\r\n{HEAD}Accept: text/event-stream\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"running"), 10)
    await until(lambda: served.world.executions.readers == 1, "the follower waits")
    writer.close()
    await until(lambda: served.world.executions.readers == 0, "nobody waits any more")


async def test_events_reach_a_follower_as_they_happen(served: Served) -> None:
    running = served.world.executions.add(
        new_execution(state=ExecutionState.RUNNING), [lifecycle(1, ExecutionState.RUNNING)]
    )
    headers = {"x-api-key": KEY, "Accept": "text/event-stream"}
    async with (
        httpx.AsyncClient(base_url=served.url, headers=headers) as client,
        client.stream("GET", f"{EXECUTIONS}/exec-1/events") as response,
    ):
        lines = response.aiter_lines()
        assert [await anext(lines) for _ in range(2)] == ["event: lifecycle", "id: 1"]
        await until(lambda: served.world.executions.readers == 1, "the follower waits")
        await served.world.executions.grow(running, [chunk(2, b"x", 0)])
        assert [await anext(lines) for _ in range(4)][2:] == ["event: stdout", "id: 2"]
        await until(lambda: served.world.executions.readers == 1, "the follower waits")
        ended = new_execution(state=ExecutionState.SUCCEEDED)
        await served.world.executions.grow(ended, [lifecycle(3, ExecutionState.SUCCEEDED)])
        rest = [line async for line in lines]
    assert "id: 3" in rest
    assert rest[-1] == ""


async def test_a_reader_that_reads_nothing_is_cut_off_and_holds_no_more_than_a_few_pieces(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALL_SECONDS", 0.3)
    served.world.executions.add(*finished(pieces=[(Stream.STDOUT, b"x" * (32 << 20))]))
    given = 0
    output = served.world.executions.output

    async def counted(*arguments: Any, **more: Any) -> bytes:
        nonlocal given
        piece = await output(*arguments, **more)
        given += len(piece)
        return piece

    served.world.executions.output = counted  # type: ignore[method-assign]
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1 << 10)
    writer.write(f"GET {EXECUTIONS}/exec-1/output/stdout HTTP/1.1\r\n{HEAD}\r\n".encode())
    await until(lambda: given > 0, "the first piece is read")
    await until(lambda: not served.server.server_state.connections, "the connection is cut")
    assert given < 16 << 20
    writer.close()
    del reader


async def test_stopping_the_server_cuts_open_streams(served: Served) -> None:
    served.world.executions.add(new_execution(state=ExecutionState.RUNNING), [lifecycle(1, ExecutionState.RUNNING)])
    reader, writer = await served.connect()
    writer.write(f"GET {EXECUTIONS}/exec-1/events HTTP/1.1\r\n{HEAD}Accept: text/event-stream\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"running"), 10)
    served.server.should_exit = True
    await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_a_status_stream_over_a_socket_ends_with_a_whole_event(served: Served) -> None:
    served.world.machines.history = [new_machine(revision=8)]
    async with httpx.AsyncClient(base_url=served.url, headers={"x-api-key": KEY}) as client:
        response = await client.get(f"/v1/machines/{MACHINE_ID}/status/stream")
    assert response.text.count("event: status") == 2
    assert response.text.endswith("\n\n")
