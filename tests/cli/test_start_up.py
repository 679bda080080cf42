"""What is loaded for which command, and what help says: both are felt by users each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dormice.cli.commands import COMMANDS
from dormice.cli.completion import complete
from dormice.cli.service import OPTIONS
from dormice.config import Settings
from tests.cli.conftest import Dormice
from tests.client.fake_server import FakeServer

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"httpx", "rich", "msgspec", "click", "asyncio", "litestar", "ssl", "email", "http.client"}


def loaded_by(environment: dict[str, str], *words: str) -> set[str]:
    code = f"import sys; from dormice.cli.main import run; run({[*words]!r}); print('\\n', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_nothing_slow(environment: dict[str, str]) -> None:
    assert not loaded_by(environment, "--help") & {*SLOW, "typing", "socket", "json"}


def test_exec_loads_neither_httpx_nor_msgspec(environment: dict[str, str], server: FakeServer) -> None:
    assert not loaded_by(environment, "exec", "--no-stdin", server.machine(), "--", "echo", "x") & SLOW


def test_commands_about_runs_load_neither_httpx_nor_msgspec(environment: dict[str, str]) -> None:
    assert not loaded_by(environment, "runs", "list") & SLOW
    assert not loaded_by(environment, "runs", "start", "hello", "--payload", "1") & SLOW


def test_commands_about_artifacts_load_neither_httpx_nor_msgspec(environment: dict[str, str]) -> None:
    words = ("machines", "artifacts", "list", "--machine-id", "dm-1")
    assert not loaded_by(environment, *words) & {*SLOW, "pathlib"}


def test_the_websocket_library_is_loaded_only_by_who_attaches(environment: dict[str, str]) -> None:
    for words in (("terminal", "dm-1"), ("terminals", "list", "dm-1"), ("exec", "--no-stdin", "dm-1", "--", "true")):
        assert not loaded_by(environment, *words) & {*SLOW, "websockets"}


def test_help_lists_every_command_and_each_command_has_help(dormice: Dormice) -> None:
    text = dormice("--help").stdout.decode()
    for name, command in COMMANDS.items():
        assert f"  {name}" in text
        assert command.summary in text
        assert dormice(name, "--help").stdout.decode().startswith(f"usage: dormice {name}")


def test_every_setting_but_the_key_is_an_option() -> None:
    assert set(OPTIONS) == {*Settings.__struct_fields__} - {"api_key"}


def test_the_version_is_that_of_the_package(dormice: Dormice) -> None:
    assert dormice("version").stdout == dormice("--version").stdout == b"0.1.0\n"


def test_the_page_of_the_documents_is_what_help_says() -> None:
    words = [sys.executable, str(ROOT / "scripts/generate_cli_docs.py"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([""], [*COMMANDS, "--help", "--version"]),
        (["mach"], ["machines"]),
        (["machines", "w"], ["wake", "watch"]),
        (["machines", "executions", "ev"], ["events"]),
        (["machines", "artifacts", "d"], ["download", "delete"]),
        (["machines", "artifacts", "download", "--o"], ["--output"]),
        (["machines", "create", "--m"], ["--memory-mib"]),
        (["completion", ""], ["bash", "fish", "zsh", "--help"]),
        (["demo", "--driver", ""], ["container", "process"]),
        (["exec", "dm-1", "--", "l"], []),
        (["nonsense", ""], []),
    ],
)
def test_completion_knows_commands_options_and_choices(words: list[str], answer: list[str]) -> None:
    assert complete(words) == answer


def test_the_script_for_bash_completes_in_a_real_bash(environment: dict[str, str]) -> None:
    script = """
        dormice() { "$PYTHON" -m dormice.cli "$@"; }
        eval "$(dormice completion bash)"
        COMP_WORDS=(dormice machines executions cr); COMP_CWORD=3
        _dormice
        echo "${COMPREPLY[@]}"
        COMP_WORDS=(dormice keys ""); COMP_CWORD=2
        _dormice
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", script],
        env={**environment, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["create", "create list revoke"]
