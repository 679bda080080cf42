"""`dormice files`: what is in a machine. `dormice cp` moves bytes."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from dormice.cli.commands import Parser
from dormice.cli.connect import connect, server_options
from dormice.cli.printing import Columns, Record, json_option, list_options, pages, show, show_pages
from dormice.client import routes

_MARKS = {"directory": "/", "symlink": "@", "other": "?"}


def declare(parser: Parser) -> None:
    parser.epilog = (
        "Examples: dormice files ls dm-…:/var/log; dormice files rm --recursive dm-…:build; "
        "dormice files mkdir --parents dm-…:a/b. A relative path begins at /root, as ~/ does."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    listing = _command(commands, "ls", "List a directory", _list, place=_place_or_home)
    list_options(listing)
    _command(commands, "stat", "Show what a path names; of a symbolic link, the link itself", _stat)
    remove = _command(commands, "rm", "Delete a file or a directory", _remove)
    remove.add_argument("--recursive", "-r", action="store_true", help="a directory with all that is in it")
    make = _command(commands, "mkdir", "Make a directory", _make)
    make.add_argument("--parents", "-p", action="store_true", help="those above it too; it may be there already")
    make.add_argument("--mode", metavar="OCTAL", help="permissions (default 755)")
    rename = _command(commands, "mv", "Give a path of a machine another name", _rename)
    rename.add_argument("to", metavar="PATH", help="the new path, on the same machine")
    rename.add_argument("--replace", action="store_true", help="what has that name already goes")


def _command(
    commands: argparse._SubParsersAction[Parser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
    place: Callable[[str], tuple[str, str]] | None = None,
) -> Parser:
    command = commands.add_parser(name, help=summary, description=summary + ".")
    command.set_defaults(run=run)
    command.add_argument("place", metavar="MACHINE:PATH", type=place or _place)
    server_options(command)
    json_option(command)
    return command


def _place_or_home(text: str) -> tuple[str, str]:
    """As `_place`; a machine alone is its /root."""
    return (text, ".") if text.startswith("dm-") and not set(text) & {":", "/"} else _place(text)


def _place(text: str) -> tuple[str, str]:
    """Return machine and path. Raises ArgumentTypeError."""
    found = remote(text)
    if found is None:
        raise argparse.ArgumentTypeError("must be MACHINE:PATH, such as dm-…:/var/log")
    return found


def remote(text: str) -> tuple[str, str] | None:
    """Return machine and path of MACHINE:PATH, None for what is a path of this host: a slash comes before any colon."""
    machine_id, colon, path = text.partition(":")
    return (machine_id, _from_home(path) or ".") if colon and machine_id and "/" not in machine_id else None


def _from_home(path: str) -> str:
    """A relative path begins at home anyway."""
    return path[2:].lstrip("/") if path == "~" or path.startswith("~/") else path


def _name(entry: Record) -> str:
    name = entry["name"] + _MARKS.get(entry["type"], "")
    return f"{name} -> {entry['target']}" if "target" in entry else name


COLUMNS: Columns = {
    "mode": lambda entry: entry["mode"],
    "owner": lambda entry: f"{entry['uid']}:{entry['gid']}",
    "size": lambda entry: entry["size"],
    "modified": lambda entry: entry["modified_at"],
    "name": _name,
}


def _list(arguments: argparse.Namespace) -> int:
    machine_id, path = arguments.place
    listed = pages(connect(arguments), f"{routes.files(machine_id)}/list", arguments, path=path)
    show_pages(listed, COLUMNS, as_json=arguments.json)
    return 0


def _stat(arguments: argparse.Namespace) -> int:
    return _call(arguments, "GET", "/stat")


def _remove(arguments: argparse.Namespace) -> int:
    return _call(arguments, "DELETE", "", recursive=arguments.recursive or None)


def _make(arguments: argparse.Namespace) -> int:
    return _call(arguments, "POST", "/mkdir", parents=arguments.parents or None, mode=arguments.mode)


def _rename(arguments: argparse.Namespace) -> int:
    return _call(arguments, "POST", "/rename", to=_from_home(arguments.to) or ".", replace=arguments.replace or None)


def _call(arguments: argparse.Namespace, method: str, tail: str, **query: str | bool | None) -> int:
    machine_id, path = arguments.place
    reply = connect(arguments).call(method, routes.files(machine_id) + tail, query={"path": path, **query})
    show(reply.json(), as_json=arguments.json)
    return 0
