"""The rules of the house, as far as a program can check them."""

from __future__ import annotations

import ast
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from dormice.api.http import errors as http_errors
from dormice.config import DEFAULT_PREFIX, LIMIT_PREFIX, PREFIX, Settings
from dormice.domain.execution import ErrorCode
from dormice.domain.limits import Limits, MachineDefaults

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "dormice"
HERE = Path(__file__)
LONGEST_MODULE = 500
LONG_MODULES = {"src/dormice/protocol/guest.py"}
"""One noun, the guest's frames: a table that would not be shorter in two files."""
NAMELESS = {"utils", "util", "common", "helpers", "helper", "manager", "base", "models", "types", "misc"}
STARTS_TASKS = {
    "app/node.py",
    "app/server.py",
    "engine/engine.py",
    "engine/runs/engine.py",
    "engine/reconciler.py",
    "engine/tasks.py",
    "node/node.py",
    "ssh/forwarding.py",
    "ssh/shell.py",
    "node/dns.py",
    "api/http/replies.py",
    "api/previews/exchange.py",
    "api/previews/socket_exchange.py",
    "api/machines/terminal_stream.py",
    "workflows/session.py",
    "workflows/worker.py",
}
"""Modules that were given a TaskGroup, or have one for as long as one answer or one question takes."""
MAY_PAUSE = {"tests/wait.py", "tests/conformance/run_helper.py"}
"""The second is printed in somebody else's documentation as it is."""
LINT_IMPORTS = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]


def _files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _calls(path: Path) -> Iterator[tuple[ast.Call, str, str]]:
    """Yield every call with what it is called on and what it is called: `a.b.c()` gives `a.b` and `c`."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call):
            whole = ast.unparse(node.func)
            owner, _, name = whole.rpartition(".")
            yield node, owner, name


def test_tests_do_not_sleep() -> None:
    found = [
        f"{_name(path)}:{call.lineno}"
        for path in _files("tests")
        if _name(path) not in MAY_PAUSE
        for call, owner, name in _calls(path)
        if name == "sleep" and owner in {"", "time", "asyncio", "anyio", "trio"}
    ]
    assert not found, "wait for a signal or a state: tests/wait.py has wait_until"


def test_tests_do_not_replace_our_code() -> None:
    found = []
    for path in _files("tests"):
        imports = [node for node in ast.walk(_tree(path)) if isinstance(node, (ast.Import, ast.ImportFrom))]
        found += [_name(path) for node in imports if "mock" in ast.unparse(node).split()[1].split(".")]
        for call, _, name in _calls(path):
            target = call.args[1] if name == "setattr" and len(call.args) > 2 else None
            if isinstance(target, ast.Constant) and not str(target.value).isupper():
                found.append(f"{_name(path)}:{call.lineno}")
    assert not found, "put a real small thing in at the seam; only constants may be changed"


def test_tasks_are_started_in_a_task_group_and_by_few_modules() -> None:
    found = []
    for path in _files("src"):
        for call, owner, name in _calls(path):
            if name in {"ensure_future", "run_coroutine_threadsafe"} or (
                name == "create_task" and "." not in owner + "."
            ):
                found.append(f"{_name(path)}:{call.lineno}")
            if name == "create_task" and not (
                path.relative_to(SOURCE).as_posix() in STARTS_TASKS and re.search(r"group|questions", owner)
            ):
                found.append(f"{_name(path)}:{call.lineno}")
    assert not found


def test_modules_are_named_for_what_they_are() -> None:
    assert [_name(path) for path in _files("src", "tests", "scripts") if path.stem in NAMELESS] == []


def test_modules_stay_small() -> None:
    lines = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in _files("src")}
    assert {name for name, count in lines.items() if count > LONGEST_MODULE} <= LONG_MODULES
    assert statistics.median(lines.values()) <= 200


def test_functions_stay_small() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = sorted(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in _files("src")
        for node in ast.walk(_tree(path))
        if isinstance(node, kinds)
    )
    assert lengths[len(lengths) * 9 // 10] <= 35


def test_nothing_is_left_for_later() -> None:
    words = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")))
    folders = ("src", "tests", "scripts", "bench", "docs", "examples", "guest/src", "packaging")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = [path for path in files if path.suffix in {".py", ".md", ".c", ".h", ".sql", ".service", ""}]
    found = [_name(path) for path in texts if b"\0" not in (data := path.read_bytes()) and words.search(data.decode())]
    assert not found


def _documented(page: str, words: Iterator[str] | list[str]) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [word for word in words if not re.search(rf"\b{re.escape(word)}\b", text)]


def test_every_setting_and_limit_is_documented() -> None:
    settings = [PREFIX + name.upper() for name in Settings.__struct_fields__]
    limits = [LIMIT_PREFIX + field.name.upper() for field in fields(Limits)]
    defaults = [DEFAULT_PREFIX + field.name.upper() for field in fields(MachineDefaults)]
    assert _documented("configuration.md", settings + limits + defaults) == []


def test_every_error_code_is_documented() -> None:
    assert _documented("errors.md", [code.value for code in ErrorCode]) == []
    raised = {kind.code for kind in http_errors.CODED_STATUS}
    for path in _files("src"):
        for call, _, _ in _calls(path):
            named = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
            raised |= {
                str(value.value)
                for value in named
                if isinstance(value, ast.Constant) and re.fullmatch("[A-Z]+(_[A-Z]+)+", str(value.value))
            }
    assert _documented("errors.md", sorted(raised)) == []


def _lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LINT_IMPORTS, "--no-cache"],
        cwd=root,
        env={"PYTHONPATH": "src", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_keep_to_the_contracts() -> None:
    done = _lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("domain/ids.py", "os"),
        ("domain/limits.py", "dormice.protocol.framing"),
        ("protocol/framing.py", "asyncio"),
        ("protocol/guest.py", "dormice.store.interface"),
        ("engine/stdin.py", "dormice.store.sqlite.store"),
        ("engine/board.py", "dormice.node.runtime"),
        ("engine/feed.py", "dormice.api.http.sse"),
        ("engine/clock.py", "dormice.config"),
        ("node/slots.py", "dormice.engine.board"),
        ("node/slots.py", "dormice.store.interface"),
        ("store/interface.py", "dormice.engine.orders"),
        ("api/http/sse.py", "dormice.store.sqlite.store"),
        ("client/sse.py", "dormice.domain.execution"),
        ("workflows/lease.py", "dormice.domain.run"),
        ("supervisor.py", "dormice.node.node"),
        ("app/up.py", "dormice.node.node"),
        ("app/node.py", "dormice.store.sqlite.store"),
        ("ssh/relay.py", "dormice.config"),
        ("engine/ssh_sessions.py", "dormice.ssh.authority"),
        ("workers/push.py", "dormice.engine.board"),
        ("workers/push_rules.py", "dormice.config"),
        ("outbound/webhooks.py", "dormice.store.interface"),
        ("engine/webhooks/delivering.py", "dormice.outbound.webhooks"),
        ("mcp/tools.py", "dormice.domain.execution"),
    ],
)
def test_a_wrong_import_breaks_a_contract(module: str, imported: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    path = tmp_path / "src" / "dormice" / module
    path.write_text(f"{path.read_text(encoding='utf-8')}\nimport {imported}\n", encoding="utf-8")
    done = _lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout
