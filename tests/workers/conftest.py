from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.workers.fake_worker import FakeWorker


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test on the loop of the server, and on the plain one."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(name="worker")
async def _worker() -> AsyncIterator[FakeWorker]:
    async with FakeWorker() as worker:
        yield worker
