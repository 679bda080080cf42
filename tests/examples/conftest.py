"""A server without keys, and for each example a project and a worker of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.command_line import CommandLine
from tests.conftest import StartLive
from tests.live import Live


@pytest.fixture(scope="module", name="local_live")
def _local_live(start_live: StartLive) -> Iterator[Live]:
    with start_live("process", DORMICE_LOCAL_MODE="true") as live:
        yield live


@pytest.fixture(name="example")
def _example(local_live: Live) -> Iterator[CommandLine]:
    example = CommandLine(local_live)
    yield example
    example.stop()
