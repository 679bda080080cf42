from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.fake_server import KEY, FakeServer, running

Dormice = Callable[..., subprocess.CompletedProcess[bytes]]
COMMAND = [sys.executable, "-m", "dormice.cli"]


@pytest.fixture(name="server")
def _server() -> Iterator[FakeServer]:
    with running() as server:
        yield server


@pytest.fixture(name="environment")
def _environment(server: FakeServer, tmp_path: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DORMICE_")}
    ours = {"DORMICE_BASE_URL": server.url, "DORMICE_API_KEY": KEY, "DORMICE_DATA_DIR": str(tmp_path), "COLUMNS": "100"}
    return {**inherited, **ours}


@pytest.fixture(name="dormice")
def _dormice(environment: dict[str, str]) -> Dormice:
    """Run `dormice WORDS` to its end, its stdin `stdin` or empty, with `changes` to its environment."""

    def run(*words: str, stdin: bytes | None = None, **changes: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*COMMAND, *words],
            env={**environment, **changes},
            input=stdin or b"",
            capture_output=True,
            timeout=60,
            check=False,
        )

    return run
