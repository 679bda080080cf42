"""Every test of the port runs on every adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from dormice.store.sealing import Sealer
from dormice.store.sqlite import SqliteStore
from dormice.store.workflows import WholeStore as Store
from tests.store.world import World


def open_sqlite(directory: Path) -> Store:
    return SqliteStore.open(directory / "dormice.sqlite3", Sealer.load(directory / "sealing.key"))


ADAPTERS: Mapping[str, Callable[[Path], Store]] = {"sqlite": open_sqlite}


@pytest.fixture(params=ADAPTERS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = ADAPTERS[request.param](tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
async def world(store: Store) -> World:
    return await World.made(store)
