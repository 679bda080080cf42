"""The table of commands: name, what it is for, and the module that declares its options and runs it."""

from __future__ import annotations

import argparse
import os
import sys
from collections import namedtuple
from importlib import import_module
from itertools import takewhile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple, NoReturn

    class Command(NamedTuple):
        module: str
        summary: str
else:
    Command = namedtuple("Command", "module summary")  # noqa: PYI024 - without loading typing

COMMANDS = {
    "up": Command("service", "Run server and node on this host"),
    "server": Command("service", "Run the server alone"),
    "node": Command("service", "Run the node alone (needs root)"),
    "exec": Command("exec", "Run a command on a machine, live, and exit as it does"),
    "ssh": Command("ssh", "Log in to a machine with OpenSSH, run a command there, or forward its ports"),
    "machines": Command(
        "machines", "Create, fork, list, change, put to sleep, wake and delete machines; their executions and artifacts"
    ),
    "snapshots": Command("snapshots", "Keep copies of machines' disks, list and delete them"),
    "preview": Command("preview", "Serve a port of a machine, and print the link that opens it"),
    "terminal": Command("terminal", "Use a shell on a machine from this terminal; leave it and come back"),
    "terminals": Command("terminals", "List, show and hang up terminals, and read what they have shown"),
    "cp": Command("cp", "Copy files and directories into machines and out of them"),
    "files": Command("files", "List, look at, delete and rename files in a machine; make directories"),
    "worker": Command("worker", "Run the workflows of a Python module"),
    "workers": Command("workers", "List the workers of workflows"),
    "workflows": Command("workflows", "List the workflows that workers offer"),
    "runs": Command("runs", "Start, list, watch, cancel and rerun workflows"),
    "events": Command("events", "Publish events, and read those of a topic"),
    "schedules": Command("schedules", "Run workflows at set times"),
    "usage": Command("usage", "Show what machines have used"),
    "keys": Command("keys", "Create, list and revoke API keys"),
    "mcp": Command("mcp", "Offer machines as tools of the Model Context Protocol"),
    "webhooks": Command("webhooks", "Have URLs told of what happens: create, list, change, test, delete"),
    "image": Command("image", "Build, import, list and remove the images of machines on this host"),
    "limits": Command("limits", "Show every limit and default of the server"),
    "doctor": Command("doctor", "Say what this host lacks to run machines, and how to get it"),
    "gc": Command("gc", "Remove what crashes have left on this host"),
    "demo": Command("demo", "Show it all once, on a server of its own that is gone afterwards"),
    "completion": Command("completion", "Print the completion script of a shell"),
    "version": Command("version", "Print the version"),
}


_BY_NAME = "--machine-id"


class _Formatter(argparse.HelpFormatter):
    """Finds its width without shutil, which argparse loads for nothing else: 4 ms for every command."""

    def __init__(self, prog: str) -> None:
        try:
            columns = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size().columns
        except (OSError, ValueError):
            columns = 80
        super().__init__(prog, width=columns - 2)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose exit code for wrong usage can be set, and which takes no abbreviated options."""

    failure_code = 1
    """Exit code when the server refuses or fails."""
    usage_code = 2
    takes_argv = False
    """Whether what stands behind `--` is a command for a machine, `argv` of the result."""
    needs_argv = True
    """Whether such a command has to be there."""

    def __init__(self, **settings: object) -> None:
        settings.setdefault("allow_abbrev", False)
        settings.setdefault("formatter_class", _Formatter)
        super().__init__(**settings)  # type: ignore[arg-type]

    def parse_words(self, words: list[str]) -> argparse.Namespace:
        """As parse_args. Exits with `usage_code` if the words are wrong."""
        if not self.takes_argv:
            return self.parse_args(words)
        end = words.index("--") if "--" in words else len(words)
        arguments, rest = self.parse_known_args(words[:end], argparse.Namespace(argv=words[end + 1 :]))
        if rest and (arguments.argv or not self.needs_argv):
            hint = "" if arguments.argv else "; a command goes behind --"
            self.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
        return arguments  # without argv, what is left over is most likely the command: that is said when it is missed

    def parse_known_args(  # type: ignore[override] # it has a wider type there
        self, args: list[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse does it, except that a machine may be named by --machine-id or as a word alone, whichever is usual here."""
        arguments, rest = super().parse_known_args(self._with_machine(args or []), namespace)
        if rest and not self.takes_argv:  # else the command above would say so, in its own name
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return arguments, rest

    def _with_machine(self, words: list[str]) -> list[str]:
        """The words, with the machine as this command declares it. What stands behind it or behind `--` may be a command's own."""
        ours = list(takewhile(lambda word: word != "--", words))
        at = next((at for at, word in enumerate(ours) if word.startswith("dm-")), len(ours))
        if _BY_NAME in self._option_string_actions:
            named = any(word.partition("=")[0] == _BY_NAME for word in ours)
            return words if named or at == len(ours) else [*words[:at], _BY_NAME, *words[at:]]
        if any(action.dest == "machine_id" for action in self._actions):
            for number, word in enumerate(ours[:at]):
                name, equals, value = word.partition("=")
                if name == _BY_NAME:
                    rest = words[number + 1 :] if equals else words[number + 2 :]
                    return [*([value] if equals else words[number + 1 : number + 2]), *words[:number], *rest]
        return words

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(self.usage_code)


def parser_of(name: str) -> Parser:
    """The parser of one command, with its subcommands."""
    command = COMMANDS[name]
    parser = Parser(prog=f"dormice {name}", description=command.summary + ".")
    import_module(f"dormice.cli.{command.module}").declare(parser)
    return parser
