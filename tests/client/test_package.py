"""The package as its users see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dormice
import dormice.client
from dormice.client import errors
from dormice.client.statuses import FINISHED
from dormice.domain.execution import TERMINAL, ExecutionState

ROOT = Path(__file__).resolve().parents[2]


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_synchronous_client_is_the_generated_one() -> None:
    script = ROOT / "scripts/generate_sync_client.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_exported_name_is_there() -> None:
    assert dormice.__all__ == dormice.client.__all__ == sorted(dormice.__all__)
    for name in dormice.__all__:
        assert getattr(dormice, name).__name__ == name
    for module in (dormice, dormice.client):
        with pytest.raises(AttributeError, match="nonsense"):
            _ = module.nonsense


def test_importing_the_package_loads_nothing_of_it() -> None:
    assert {name for name in loaded_after("import dormice") if name.startswith("dormice")} == {"dormice"}


def test_httpx_and_aiohttp_are_loaded_only_when_a_client_needs_them() -> None:
    assert not {"httpx", "aiohttp"} & loaded_after("from dormice import Dormice, AsyncDormice")


def test_the_client_knows_nothing_of_the_server() -> None:
    ours = {name for name in loaded_after("from dormice import Dormice, AsyncDormice") if name.startswith("dormice.")}
    assert {name.split(".")[1] for name in ours} == {"client"}


def test_the_tree_in_the_docstring_of_errors_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = next((word for word in line.split() if word.isidentifier() and hasattr(errors, word)), None)
        if name is None or not line.startswith("    "):
            continue
        depth = (line.index(name) - 4) // 4
        above[depth:] = [name]
        drawn[name] = above[depth - 1] if depth else "Exception"
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert drawn == {each.__name__: each.__bases__[0].__name__ for each in classes}


def test_the_finished_statuses_are_those_of_the_domain() -> None:
    assert frozenset(state.value for state in TERMINAL) == FINISHED
    assert frozenset(state.value for state in ExecutionState) > FINISHED
