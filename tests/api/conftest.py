"""An application over fakes, spoken to over real ASGI and, where sockets matter, over a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest

from dormice.api.app import create_app
from tests.api.fakes import KEY, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(world.services())
    transport = httpx.ASGITransport(app=cast("Any", app))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://dormice", headers={"Authorization": f"Bearer {KEY}"}
    ) as opened:
        yield opened
