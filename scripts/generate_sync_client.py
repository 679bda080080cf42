"""Write `client/_sync` from `client/_async`, and the same in `workflows`; with --check, only say whether it is up to date (exit 1 if not).

The two clients are the same but for `async` and `await`, for names that begin with Async, and for the modules of
`BY_HAND`, where waiting and awaiting themselves are at work.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [ROOT / "src/dormice/client", ROOT / "src/dormice/workflows"]
BY_HAND = {"__init__.py", "pause.py", "pagination.py", "websocket.py"}
HEADER = "# Generated from _async/{name} by scripts/generate_sync_client.py; change that and run it again.\n"

RULES = [
    (r"# ruff: noqa: ASYNC109.*\n", ""),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait\b[ ]?", ""),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\bAsyncPaginator\b", "Page"),
    (r"\bAsyncGenerator\b", "Generator"),
    (r"\bAsyncGenerator\[(\w+), None\]", r"Generator[\1, None, None]"),
    (r"\bGenerator\[(\w+), None\]", r"Generator[\1, None, None]"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\bAsync([A-Z]\w+)", r"\1"),
    (r"\b_async\b", "_sync"),
    (r"\baiohttp_transport\b", "httpx_transport"),
    (r"\bAiohttpTransport\b", "HttpxTransport"),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r"\baclosing\b", "closing"),
    (r"\baclose\b", "close"),
    (r"\baread\b", "read"),
    (r"\banext\b", "next"),
]


def generate(source: Path, target: Path) -> str:
    text = source.read_text()
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    text = HEADER.format(name=source.name) + text
    for step in (
        ["check", "--select", "I,F401,UP028", "--fix", "--unsafe-fixes", "--exit-zero", "--quiet"],
        ["format", "--quiet"],
    ):
        command = [sys.executable, "-m", "ruff", *step, "--stdin-filename", str(target), "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return text


def main() -> int:
    stale = sum(map(refresh, PACKAGES))
    return 1 if stale and "--check" in sys.argv else 0


def refresh(package: Path) -> int:
    """Write what is stale of a package, and return how much was."""
    names = sorted(path.name for path in (package / "_async").glob("*.py") if path.name not in BY_HAND)
    stale = 0
    for name in names:
        target = package / "_sync" / name
        text = generate(package / "_async" / name, target)
        if target.exists() and target.read_text() == text:
            continue
        stale += 1
        print(f"{target.relative_to(ROOT)} is {'stale' if '--check' in sys.argv else 'written'}")
        if "--check" not in sys.argv:
            target.write_text(text)
    for leftover in sorted({path.name for path in (package / "_sync").glob("*.py")} - BY_HAND - set(names)):
        stale += 1
        print(f"{leftover} has no source in _async")
    return stale


if __name__ == "__main__":
    sys.exit(main())
