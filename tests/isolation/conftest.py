"""A machine for each test of the walls around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.node.machine_lab import Lab, Shell, lab, machine

from dormice.node.machines import ContainerRuntime
from dormice.node.runtime import Running


@pytest.fixture(name="lab")
async def _lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        yield made


@pytest.fixture(name="runtime")
async def _runtime(lab: Lab) -> AsyncIterator[ContainerRuntime]:
    async with lab.opened() as runtime:
        yield runtime


@pytest.fixture(name="started")
async def _started(runtime: ContainerRuntime) -> AsyncIterator[tuple[Running, Shell]]:
    """Not the first machine of its node, which may have been started otherwise: the later ones get its compiled filter."""
    async with machine(runtime):
        pass
    async with machine(runtime) as started:
        yield started


@pytest.fixture(name="inside")
def _inside(started: tuple[Running, Shell]) -> Shell:
    return started[1]
