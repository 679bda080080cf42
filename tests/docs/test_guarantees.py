"""Every promise is shown by tests, and every test that docs/guarantees.md names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def _tests(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_is_named_exists() -> None:
    missing = [
        f"{path}::{name}" if name else path
        for path, name in NAMED.findall(TEXT)
        if not (ROOT / path).exists() or (name and name not in _tests(ROOT / path))
    ]
    assert not missing


def test_every_promise_says_what_it_does_not_promise_and_what_shows_it() -> None:
    promises = re.split(r"^## \d+\. ", TEXT, flags=re.MULTILINE)[1:]
    assert re.findall(r"^## (\d+)\. ", TEXT, flags=re.MULTILINE) == [str(n + 1) for n in range(len(promises))]
    assert promises
    for promise in promises:
        title = promise.splitlines()[0]
        assert "**Promise.**" in promise, title
        assert "**Not promised.**" in promise, title
        assert NAMED.search(promise.partition("**Shown by.**")[2]), title
