"""A Dormice for each module of faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.stack import Victim, victim


@pytest.fixture(scope="module", name="victim")
def _victim(directory: Callable[[], Path], request: pytest.FixtureRequest) -> Iterator[Victim]:
    """One whose machines are bare processes, or what the test's module asks for."""
    path = directory()
    path.chmod(0o755)
    with victim(path, getattr(request, "param", "process")) as made:
        yield made
