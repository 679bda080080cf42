"""A Dormice for each module of faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.faults.stack import Victim, victim

_numbers = count(20)


@pytest.fixture(scope="module", name="victim")
def _victim(directory: Callable[[], Path], request: pytest.FixtureRequest) -> Iterator[Victim]:
    """One whose machines are bare processes, or what the test's module asks for."""
    path = directory()
    path.chmod(0o755)
    with victim(path, getattr(request, "param", "process"), next(_numbers)) as made:
        yield made
