"""`dormice`: finds the command, runs it, and turns what went wrong into one line and an exit code."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from dormice.cli.commands import COMMANDS, parser_of

USAGE = "usage: dormice COMMAND [options]"


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """Run the command that the words ask for, and return its exit code."""
    if not words or words[0] in {"-h", "--help", "help"}:
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        words = ["version"]
    if words[0] == "__complete":
        from dormice.cli.completion import complete  # noqa: PLC0415 - loaded when needed

        print("\n".join(complete(words[1:])))
        return 0
    if words[0] not in COMMANDS:
        print(f"dormice: there is no command {words[0]!r}; dormice --help lists them", file=sys.stderr)
        return 2
    return _run(words)


def _run(words: list[str]) -> int:
    parser = parser_of(words[0])
    arguments = parser.parse_words(words[1:])
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads on: let the interpreter's last flush succeed
        return 141
    except KeyboardInterrupt:
        return 130
    except import_module("dormice.client.errors").DormiceError as error:  # loaded only if something is raised
        from dormice.cli.failures import report  # noqa: PLC0415 - loaded when needed

        code = report(error, as_json=getattr(arguments, "json", False), failure_code=parser.failure_code)
    return code


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            USAGE,
            "",
            "Durable executions on machines that sleep.",
            "",
            *lines,
            "",
            "dormice COMMAND --help says more. The server is found by DORMICE_BASE_URL (http://127.0.0.1:7433), the key",
            "by DORMICE_API_KEY or, on the server's host, in the data directory (DORMICE_DATA_DIR, /var/lib/dormice).",
        ]
    )
