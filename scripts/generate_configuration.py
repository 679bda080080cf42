"""Write docs/configuration.md from the code. `--check` fails when the page is stale."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"
_HEAD = """# Configuration

<!-- made by scripts/generate_configuration.py: change the code, not this page -->

Settings come from the command line first, then from the environment, then from the defaults here. The API key is taken from the
environment only, so that it never shows in a process list.

## Settings

| option | variable | default | meaning |
|---|---|---|---|
"""
_LIMITS = """
## Limits

`GET /v1/limits` shows the values in force. Each can be set by its variable. Sizes are in bytes, times in the unit of the name.

| limit | variable | default | meaning |
|---|---|---|---|
"""
_TRACES = """
## Traces

`OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) names a collector, and has spans exported to it; the other variables of the OpenTelemetry
SDK hold too: [operations.md](operations.md#traces).
"""
_DEFAULTS = """
## What a machine gets when the create body does not say

| field | variable | default |
|---|---|---|
"""
_RETENTION = """
## How long things are kept

**Finished executions** with their output, and **destroyed machines** once they have no executions, can be read for `keep_finished_hours`;
then they are deleted and answer 404. What has not ended is never touched. The default is 30 days. The services that people know keep the
records of what ended for days to months (Temporal 3 days, AWS Step Functions and GitHub Actions 90 days), and none keeps them for ever
unless asked to. Here one execution may hold 32 MiB of output on a disk that machines share, so for ever would mean a full disk some day;
30 days is also the longest that one execution may run. For records that must last, set 0 (for ever) or copy the output when it is there.

For as long are kept: **runs** of workflows that have ended, with their steps; **events**; **traces** of which nothing more was reported; what
**sessions** remember, from its last change on; messages of conversations.

What machines have **used** is kept for `keep_usage_days`, longer than the machines themselves.

`keep_finished_hours` is never shorter than `idempotency_hours`: as long as a key counts, a repeated request gets what the first one made.

Deletion goes in pieces of a few milliseconds, the longest ended first, and takes a tenth of the store's time at most. The **file does not
shrink**: SQLite fills the free pages with what comes next, so it stays as large as the most that was ever kept at once. (Shrinking by itself,
`auto_vacuum`, would make every commit dearer for a file that grows again anyway.) To give the space back to the host, stop the server and run
`sqlite3 DATA_DIR/server/dormice.sqlite3 VACUUM`.
"""


def fields(path: str, class_name: str) -> Iterator[tuple[str, str, str]]:
    """Yield (name, default as written, docstring) of a class's annotated fields."""
    tree = ast.parse((ROOT / "src" / "dormice" / path).read_text())
    body = next(n.body for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == class_name)
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = " ".join(str(after.value.value).split())
            yield node.target.id, _shown(node.value), text


def _shown(value: ast.expr) -> str:
    if isinstance(value, ast.Constant):
        return repr(value.value) if value.value == "" else str(value.value)
    return f"{eval(compile(ast.Expression(value), 'default', 'eval'), {}):,}".replace(",", "_")  # noqa: S307 - our own source


def page() -> str:
    """Return the whole page."""
    parts = [_HEAD]
    for name, default, text in fields("config.py", "Settings"):
        option = "–" if name == "api_key" else f"`--{name.replace('_', '-')}`"
        parts.append(f"| {option} | `DORMICE_{name.upper()}` | `{default}` | {text} |\n")
    parts.append(_TRACES)
    parts.append(_LIMITS)
    for name, default, text in fields("domain/limits.py", "Limits"):
        parts.append(f"| `{name}` | `DORMICE_LIMIT_{name.upper()}` | {default} | {text} |\n")
    parts.append(_RETENTION)
    parts.append(_DEFAULTS)
    for name, default, _ in fields("domain/limits.py", "MachineDefaults"):
        parts.append(f"| `{name}` | `DORMICE_DEFAULT_{name.upper()}` | {default} |\n")
    return "".join(parts)


def main() -> int:
    """Write the page, or compare it."""
    if "--check" in sys.argv:
        return 0 if PAGE.exists() and PAGE.read_text() == page() else 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
