"""The transports of the two clients: many connections, and what the environment says of the way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import httpx
import pytest

from dormice import APIConnectionError, APITimeoutError, AsyncDormice, ConfigurationError, Dormice
from dormice.client.aiohttp_transport import AiohttpTransport
from dormice.client.httpx_transport import HttpxTransport
from dormice.client.transport import Request, Timeout
from tests.client.fake_server import KEY

TOGETHER = 20
OK = b"HTTP/1.1 200 OK\r\nX-Request-ID: 7\r\nContent-Length: 2\r\n\r\n{}"


class Served:
    """What the server of these tests has seen. A request for `/together` is answered once as many are here."""

    def __init__(self) -> None:
        self.url = ""
        self.heads: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.ended = asyncio.Event()
        self.together = asyncio.Event()
        self.answers = {b"/": OK, b"/together": OK}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head)
                target = head.split()[1]
                if target.endswith(b"/together"):
                    if len(self.heads) == TOGETHER:
                        self.together.set()
                    await self.together.wait()
                writer.write(self.answers.get(target, OK))
                if target == b"/cut":
                    break
        self.ended.set()
        writer.close()


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    seen = Served()
    server = await asyncio.start_server(seen.serve, "127.0.0.1", 0)
    seen.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield seen
    finally:
        server.close()
        for writer in seen.writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Served, AiohttpTransport]]:
    async with served() as server:
        transport = AiohttpTransport(server.url)
        try:
            yield server, transport
        finally:
            await transport.aclose()


def get(url: str, timeout: Timeout = Timeout(5, 5)) -> Request:  # noqa: B008 - a constant
    return Request("GET", url, {}, b"", timeout)


async def body_of(transport: AiohttpTransport, url: str) -> bytes:
    response = await transport.send(get(url))
    try:
        return await response.read()
    finally:
        await response.aclose()


@pytest.fixture(name="no_proxy", autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_requests_at_once_wait_for_none_of_each_other_and_connections_are_used_again() -> None:
    async with connected() as (server, transport):
        bodies = await asyncio.gather(*(body_of(transport, f"{server.url}/together") for _ in range(TOGETHER)))
        assert bodies == [b"{}"] * TOGETHER
        assert await body_of(transport, server.url) == b"{}"
        assert len(server.writers) == TOGETHER


async def test_requests_of_threads_are_spread_over_pools() -> None:
    async with served() as server:
        transport = HttpxTransport(server.url)

        def ask(path: str) -> bytes:
            response = transport.send(get(server.url + path))
            try:
                return response.read()
            finally:
                response.close()

        with ThreadPoolExecutor(TOGETHER) as threads:
            asked = [asyncio.wrap_future(threads.submit(ask, "/together")) for _ in range(TOGETHER)]
            assert await asyncio.gather(*asked) == [b"{}"] * TOGETHER
        assert await asyncio.to_thread(ask, "/") == b"{}"
        assert [pool.busy for pool in transport._pools] == [0, 0, 0]
        transport.close()


async def test_names_of_headers_are_in_lower_case() -> None:
    async with connected() as (server, transport):
        response = await transport.send(get(server.url))
        assert response.headers["x-request-id"] == "7"
        await response.aclose()


async def test_a_response_that_is_left_ends_its_connection() -> None:
    async with connected() as (server, transport):
        server.answers[b"/"] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
        response = await transport.send(get(server.url))
        assert await anext(aiter(response.chunks())) == b"half"
        await response.aclose()
        await server.ended.wait()


async def test_a_redirection_is_not_followed() -> None:
    async with connected() as (server, transport):
        server.answers[b"/"] = b"HTTP/1.1 307 Away\r\nLocation: /else\r\nContent-Length: 0\r\n\r\n"
        response = await transport.send(get(server.url))
        assert response.status == 307
        await response.aclose()


def _refused() -> str:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


async def test_what_happens_on_the_way_is_a_connection_error_without_what_the_url_asks_for() -> None:
    async with connected() as (server, transport):
        server.answers |= {
            b"/cut": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            b"/else?q=secret": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        }
        for url, said in (
            (f"{_refused()}?q=secret", "Connection refused"),
            (f"{server.url}/cut", "not completed"),
            (f"{server.url}/else?q=secret", "HTTP/"),
        ):
            with pytest.raises(APIConnectionError, match=f"(?s)^no answer from http://127.*{said}") as caught:
                await body_of(transport, url)
            assert "secret" not in str(caught.value)


async def test_an_answer_that_does_not_come_in_time_is_a_timeout() -> None:
    async with connected() as (server, transport):
        with pytest.raises(APITimeoutError, match="no answer in time"):
            await transport.send(get(f"{server.url}/together", Timeout(5, 0.05)))
        server.answers[b"/slow"] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
        response = await transport.send(get(f"{server.url}/slow", Timeout(5, 0.05)))
        with pytest.raises(APITimeoutError, match="no answer in time"):
            await response.read()
        await response.aclose()
        server.together.set()


async def test_a_large_body_that_the_server_does_not_take_is_a_timeout() -> None:
    async with connected() as (server, transport):
        with pytest.raises(APITimeoutError, match="no answer in time"):
            await transport.send(
                Request("POST", f"{server.url}/together", {}, b"x" * 30_000_000, Timeout(connect=5, read=0.05))
            )
        server.together.set()


async def test_a_large_body_is_sent_whole_and_with_its_length() -> None:
    body = b"x" * 3_000_000
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.put_nowait(await reader.readuntil(b"\r\n\r\n"))
        received.put_nowait(await reader.readexactly(len(body)))
        writer.write(OK)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        transport = AiohttpTransport(url)
        response = await transport.send(Request("POST", url, {}, body, Timeout(5, 5)))
        assert response.status == 200
        await response.aclose()
        await transport.aclose()
    head = (await received.get()).lower()
    assert b"content-length: 3000000\r\n" in head
    assert b"transfer-encoding" not in head
    assert await received.get() == body


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
async def test_a_proxy_of_the_environment_is_used_but_not_for_this_host(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served() as server:
        monkeypatch.setenv(name, server.url)
        far = AiohttpTransport("http://far.example")
        assert await body_of(far, "http://far.example/v1/x") == b"{}"
        assert server.heads[-1].startswith(b"GET http://far.example/v1/x HTTP/1.1")
        monkeypatch.setenv(name, _refused())
        near = AiohttpTransport(server.url)
        assert await body_of(near, server.url) == b"{}"
        monkeypatch.setenv("no_proxy", "far.example")
        assert AiohttpTransport("http://far.example")._proxy is None
        await far.aclose()
        await near.aclose()


async def test_a_proxy_needs_no_scheme_and_one_that_says_no_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served() as server:
        server.answers[b"far.example:443"] = b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n"
        monkeypatch.setenv("all_proxy", server.url.replace("http://", "bob:very-secret@"))
        far = AiohttpTransport("https://far.example")
        with pytest.raises(APIConnectionError, match=r"the proxy answers 407 Who\?") as caught:
            await body_of(far, "https://far.example/v1/x")
        assert "secret" not in str(caught.value)
        await far.aclose()


def test_a_proxy_that_speaks_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://bob:very-secret@proxy.example:1080")
    for transport in (AiohttpTransport, HttpxTransport):
        with pytest.raises(ConfigurationError, match=r"(?i)proxy") as caught:
            transport("http://far.example")
        assert "secret" not in str(caught.value)


def test_an_httpx_client_of_the_callers_can_carry_the_requests() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/prefix/v1/limits":
            return httpx.Response(200, json={"limits": {"key": request.headers["authorization"]}})
        raise httpx.ConnectError("no way")

    carrier = httpx.Client(transport=httpx.MockTransport(answer))
    transport = HttpxTransport("http://far.example", carrier)
    with Dormice(base_url="http://far.example/prefix/", api_key=KEY, transport=transport, max_retries=0) as client:
        assert client.limits().limits == {"key": f"Bearer {KEY}"}
        with pytest.raises(APIConnectionError, match="no way"):
            client.machines.list()


def test_a_client_may_be_used_in_one_event_loop_after_the_other() -> None:
    with ThreadPoolExecutor(1) as thread, asyncio.Runner() as servers:
        server, stop = Served(), asyncio.Event()

        async def serve() -> None:
            listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
            server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
            started.set()
            await stop.wait()
            listening.close()

        started = threading.Event()
        serving = thread.submit(servers.run, serve())
        assert started.wait(10)
        transport = AiohttpTransport(server.url)
        server.answers[b"/"] = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        for _ in range(2):
            assert asyncio.run(body_of(transport, server.url)) == b"{}"
        asyncio.run(transport.aclose())
        servers.get_loop().call_soon_threadsafe(stop.set)
        serving.result(10)


def test_what_is_left_of_a_body_that_is_not_wanted_keeps_no_connection() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 20)

    async def ask(url: str) -> int:
        transport = AiohttpTransport(url)
        response = await transport.send(Request("PUT", url, {}, b"", Timeout(5, 5), endless()))
        await response.read()
        await response.aclose()
        await transport.aclose()
        return response.status

    def refuse(listener: socket.socket) -> socket.socket:
        connection, _ = listener.accept()
        connection.recv(1024)
        connection.sendall(b"HTTP/1.1 409 Full\r\nContent-Length: 2\r\n\r\n{}")
        return connection

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        refusing = threads.submit(refuse, listener)
        assert asyncio.run(ask(f"http://127.0.0.1:{listener.getsockname()[1]}")) == 409
        with refusing.result(5):
            gc.collect()  # warns of a connection that is open still, which is an error here


def test_a_client_may_be_made_where_no_event_loop_runs() -> None:
    client = AsyncDormice(base_url=_refused(), api_key=KEY, max_retries=0)

    async def ask() -> None:
        async with client:
            with pytest.raises(APIConnectionError):
                await client.limits()

    asyncio.run(ask())
