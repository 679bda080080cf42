from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.engine.scripted_node import MovedClock, Server, serving


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def server(tmp_path: Path, clock: MovedClock) -> AsyncIterator[Server]:
    async with serving(tmp_path, clock) as running:
        yield running
