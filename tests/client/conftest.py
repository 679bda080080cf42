from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from dormice import AsyncDormice, Dormice
from dormice.client.socket_transport import SocketTransport
from tests.client.fake_server import KEY, FakeServer, running


@pytest.fixture(name="server")
def _server() -> Iterator[FakeServer]:
    with running() as server:
        yield server


@pytest.fixture(name="client", params=["httpx", "socket"])
def _client(server: FakeServer, request: pytest.FixtureRequest) -> Iterator[Dormice]:
    """The synchronous client on each of its transports."""
    transport = SocketTransport() if request.param == "socket" else None
    with Dormice(base_url=server.url, api_key=KEY, transport=transport) as client:
        yield client


@pytest_asyncio.fixture(name="async_client")
async def _async_client(server: FakeServer) -> AsyncIterator[AsyncDormice]:
    async with AsyncDormice(base_url=server.url, api_key=KEY) as client:
        yield client
