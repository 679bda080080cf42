"""`dormice mcp`: what it says when it cannot serve, and what it costs others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cli.test_start_up import loaded_by

CLIENT = {"DORMICE_BASE_URL": "http://127.0.0.1:9", "DORMICE_API_KEY": "k" * 40}


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env={**CLIENT, **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def test_nothing_of_it_is_loaded_before_it_is_needed() -> None:
    loaded = loaded_by({**CLIENT, "PYTHONPATH": _path()}, "mcp", "--http", "--listen", "nowhere")
    assert "dormice.cli.mcp" in loaded
    assert not loaded & {"mcp", "pydantic", "starlette", "asyncio"}


def test_without_the_package_it_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "mcp.py").write_text("raise ImportError('none', name='mcp')\n")
    done = _run("-m", "dormice.cli", "mcp", PYTHONPATH=f"{tmp_path}:{_path()}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dormice: mcp is not installed: pip install dormice[mcp] has it\n"


def test_a_place_that_is_none_is_refused() -> None:
    done = _run("-m", "dormice.cli", "mcp", "--http", "--listen", "nowhere", PYTHONPATH=_path())
    assert done.returncode == 2
    assert "HOST:PORT" in done.stderr


def _path() -> str:
    return str(Path(__file__).resolve().parents[2] / "src")
