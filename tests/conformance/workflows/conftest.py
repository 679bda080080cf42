"""A world for each module of tests: the SDK's worker has one port, so that each has a network of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.workflows.world import PYTHON, Client, World, own_network
from tests.conftest import StartLive

LOCAL = {"DORMICE_LOCAL_MODE": "true"}


def _wanted(request: pytest.FixtureRequest, name: str) -> dict[str, str]:
    found: dict[str, str] = getattr(request.module, name, {})
    return found


@pytest.fixture(scope="module", name="bare_world")
def _bare_world(
    request: pytest.FixtureRequest, start_live: StartLive, directory: Callable[[], Path]
) -> Iterator[World]:
    """A server and the client's process, without a worker. A module's SERVER and MODULES say what else it wants."""
    if os.geteuid() != 0:
        pytest.skip("a network of its own needs root")
    if not PYTHON.exists():
        pytest.fail("the SDKs are not installed: run `make sdks`")
    modules = getattr(request.module, "MODULES", ("flows",))
    with own_network(), start_live("process", **LOCAL, **_wanted(request, "SERVER")) as live:
        world = World(live, directory(), modules)
        try:
            yield world
        finally:
            world.end_all()


@pytest.fixture(scope="module", name="world")
def _world(request: pytest.FixtureRequest, bare_world: World) -> World:
    """`bare_world` with a worker. A module's WORKER are variables for it."""
    bare_world.start_worker(**_wanted(request, "WORKER"))
    return bare_world


@pytest.fixture(scope="module", name="bare_client")
def _bare_client(bare_world: World) -> Client:
    """The SDK's client, in a process of its own."""
    return bare_world.start_client()


@pytest.fixture(scope="module", name="client")
def _client(world: World, bare_client: Client) -> Client:
    """`bare_client`, and there is a worker."""
    assert world.processes
    return bare_client
