"""The official client, over both ways, against a server of ours with a live Dormice behind it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client.streamable_http import streamable_http_client

from mcp import Client, StdioServerParameters
from tests.live import Live
from tests.shares import share
from tests.wait import wait_until

Connect = Callable[[], AbstractAsyncContextManager[Client]]


def environment(live: Live) -> Mapping[str, str]:
    """Return what `dormice mcp` is given."""
    return {**live.environment(), "DORMICE_BASE_URL": live.base_url}


@pytest.fixture(scope="session", name="http_url")
def _http_url(live: Live) -> Iterator[str]:
    """Where `dormice mcp --http` serves."""
    with share() as ours:
        command = [sys.executable, "-m", "dormice.cli", "mcp", "--http", "--listen", f"127.0.0.1:{ours.port}"]
        process = subprocess.Popen(command, env=environment(live), stdin=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{ours.port}/mcp"
        try:
            wait_until(lambda: _listens(url), 30, "it listens")
            yield url
        finally:
            process.terminate()
            process.wait(20)


def _listens(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 401
    except httpx.TransportError:
        return False


@asynccontextmanager
async def over_stdio(live: Live, **changes: str) -> AsyncIterator[Client]:
    """Speak to a `dormice mcp` of one's own."""
    words = ["-m", "dormice.cli", "mcp"]
    parameters = StdioServerParameters(command=sys.executable, args=words, env={**environment(live), **changes})
    async with Client(parameters) as client:
        yield client


@pytest.fixture(params=["stdio", "http"], name="connect")
def _connect(request: pytest.FixtureRequest, live: Live) -> Connect:
    @asynccontextmanager
    async def over_http() -> AsyncIterator[Client]:
        headers = {"authorization": f"Bearer {live.api_key}"}
        url = request.getfixturevalue("http_url")
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False, timeout=60) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            yield client

    return partial(over_stdio, live) if request.param == "stdio" else over_http


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool, which must go well, and return what it answers."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    answer: dict[str, Any] = result.structured_content
    return answer


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """Call a tool, which must not go well, and return what the model is told."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result
    return "".join(getattr(piece, "text", "") for piece in result.content)
