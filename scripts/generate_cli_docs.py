"""Write docs/cli.md from the command line's own help; with --check, only say whether it is up to date (exit 1)."""

# ruff: noqa: SLF001 - a script says what it does; argparse has no public way to list subcommands

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from dormice.cli.commands import COMMANDS, parser_of

PAGE = Path(__file__).resolve().parent.parent / "docs/cli.md"
INTRODUCTION = """\
# The command line

Written by `scripts/generate_cli_docs.py` from `dormice --help`; change the help and run it again.

**Which server.** `--base-url`, else `DORMICE_BASE_URL`, else `http://127.0.0.1:7433`. The key is `DORMICE_API_KEY`; on the
server's host it is found in `<DORMICE_DATA_DIR>/api-key` (`/var/lib/dormice`). There is no option for it: what is on a
command line is seen by every user. `DORMICE_ORG_ID` makes the server check that the key is that organization's.

**Which project.** Runs, workers, events and schedules are of a project: `--project`, else `DORMICE_PROJECT_ID`, else the
organization's default one. These commands work without a key on a server in local mode.

**Output.** People get columns that are never cut. With `--json` a record is one JSON document, and a list is one document
a line, as the pages come. Documents are what the server sent, so new fields show at once.

**Errors** are one line on stderr, `dormice: CODE: what happened; what may help`, or with `--json` one object `{"error": …}`.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the server refused or failed; with `--wait`, the machine did not get where it should, or the run did not complete |
| 2 | wrong usage |
| 3 | no server, or no key |
| 130 | Ctrl-C |
| 141 | nobody reads the output any more |

`dormice exec` has codes of its own, so that those of the command stand alone:

| exit code | meaning |
|---|---|
| of the command | it ran and ended by itself |
| 128 + n | signal n ended it |
| 124 | it was killed after `--timeout` |
| 125 | Dormice failed: no server, refused, machine lost, working directory not found, wrong usage |
| 126 | the command may not be executed |
| 127 | there is no such command |
| 130 | Ctrl-C: the execution was cancelled and has ended; a second Ctrl-C leaves at once |
| 141 | nobody reads the output any more: the execution was cancelled |

`dormice exec` forwards stdin: what is there at the start and short goes along with the command, the rest follows as it
comes, a terminal line by line. If `dormice exec` is killed, its execution runs on; `dormice machines executions` finds it.

`dormice terminal` makes the terminal that it runs in a window of one on a machine: every key goes there, Ctrl-C too. Ctrl-] then d
leaves it; the shell goes on, and `--attach` comes back to it. A lost connection is made again by itself, and what was shown meanwhile
comes then, once. What was typed may be lost with a connection; it is never typed twice. Its exit code is 0 when it was left, else that
of the shell as with `dormice exec`.

**Machines** are named by `--machine-id ID` or alone, as `dm-…`: a command that takes one takes both. Files are `MACHINE:PATH`.

**Completion.** `eval "$(dormice completion bash)"`, the same for zsh, and `dormice completion fish | source`.
"""


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in dict.fromkeys(action.choices.values()):  # an alias is the same parser again
                yield from parsers(each)


def page() -> str:
    os.environ["COLUMNS"] = "110"
    parts = [INTRODUCTION]
    for name in COMMANDS:
        parts.append(f"## dormice {name}\n")
        parts += [f"```text\n{parser.format_help().rstrip()}\n```\n" for parser in parsers(parser_of(name))]
    return "\n".join(parts)


def main() -> int:
    if PAGE.exists() and PAGE.read_text() == page():
        return 0
    if "--check" in sys.argv:
        print(f"{PAGE} is stale: run scripts/generate_cli_docs.py")
        return 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
