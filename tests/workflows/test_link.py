"""The connections of a worker, against a server that answers what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from dormice.client.settings import ClientSettings
from dormice.workflows.link import Link, LinkFailed

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def served(answer: Answer, key: str = "k") -> AsyncIterator[Link]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await answer(reader, writer)
        finally:
            writer.close()

    serving: list[asyncio.Task[None] | None] = []
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        link = Link(ClientSettings(f"http://127.0.0.1:{port}/below", key, None), "p")
        yield link
        link.close()
        await asyncio.gather(*filter(None, serving))


async def request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return head + await reader.readexactly(length)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def test_a_connection_is_used_again_and_made_again_when_it_was_closed() -> None:
    connections: list[list[bytes]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append([])
        for _ in range(2):
            connections[-1].append(await request(reader))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async with served(answer) as link:
        for _ in range(5):
            assert await link.ask("/path", b"body", 10) == b"ok"
    assert [len(each) for each in connections] == [2, 2, 1]
    assert connections[0][0].startswith(b"POST /below/path HTTP/1.1\r\n")
    assert b"authorization: Bearer k\r\n" in connections[0][0]
    assert b"x-project-id: p\r\n" in connections[0][0]


async def test_lines_are_whole_however_they_come() -> None:
    long = b"x" * 3_000_000

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(HEAD + chunk(b"a\n\nb") + chunk(b"c\n" + long))
        await writer.drain()
        writer.write(chunk(b"\nend without a line end") + b"0\r\n\r\n")
        await writer.drain()

    async with served(answer) as link:
        assert [line async for line in link.lines("/", b"", 10)] == [b"a", b"", b"bc", long]


@pytest.mark.parametrize(
    ("head", "status", "message"),
    [
        (b"HTTP/1.1 401 No\r\ncontent-length: 3\r\n\r\nwhy", 401, "HTTP status 401: why"),
        (b"HTTP/1.1 307 No\r\ncontent-length: 0\r\n\r\n", 307, "HTTP status 307"),
        (b"SSH-2.0-nonsense\r\n", 0, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", 0, "closed"),
        (b"", 0, "closed"),
    ],
)
async def test_what_is_no_good_answer_is_told(head: bytes, status: int, message: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(head)

    async with served(answer) as link:
        with pytest.raises(LinkFailed, match=message) as failure:
            await link.ask("/", b"", 10)
        assert failure.value.status == status
        with pytest.raises(LinkFailed, match=message):
            [line async for line in link.lines("/", b"", 10)]


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(HEAD)
        await reader.read()

    async with served(answer) as link:
        with pytest.raises(LinkFailed, match="no answer"):
            await link.ask("/", b"", 0.05)
        with pytest.raises(LinkFailed, match="nothing from"):
            [line async for line in link.lines("/", b"", 0.05)]


async def test_nobody_there() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        return

    async with served(answer) as link:
        pass
    with pytest.raises(LinkFailed, match="was not reached"):
        await link.ask("/", b"", 10)
