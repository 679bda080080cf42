"""`dormice terminals`: the records of terminals. `dormice terminal` is the way to use one."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from dormice.cli.commands import Parser
from dormice.cli.connect import connect, server_options
from dormice.cli.printing import Columns, Record, json_option, list_options, pages, show, show_pages
from dormice.client import routes


def declare(parser: Parser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    parser.epilog = "Examples: dormice terminals list dm-…; dormice terminals output dm-… term-… | less -R"
    listing = _command(commands, "list", "List a machine's terminals, newest first", _list)
    list_options(listing)
    json_option(listing)
    get = _command(commands, "get", "Show a terminal", _get)
    get.add_argument("--wait-ms", type=int, metavar="N", help="answer when it is ready, or after so long")
    delete = _command(commands, "delete", "Hang up a terminal; what it has shown stays", _delete)
    output = _command(commands, "output", "Write the last MiB of what a terminal has shown", _output)
    for command in (get, delete, output):
        command.add_argument("terminal_id", metavar="TERMINAL")
    for command in (get, delete):
        json_option(command)


def _command(
    commands: argparse._SubParsersAction[Parser], name: str, summary: str, run: Callable[[argparse.Namespace], int]
) -> Parser:
    command = commands.add_parser(name, help=summary, description=summary + ".")
    command.set_defaults(run=run)
    command.add_argument("machine_id", metavar="MACHINE")
    server_options(command)
    return command


def _end(terminal: Record) -> str | None:
    if terminal.get("signal") is not None:
        return f"signal {terminal['signal']}"
    if terminal.get("exit_code") is not None:
        return f"exit {terminal['exit_code']}"
    return terminal.get("error_code")


LIST: Columns = {
    "terminal id": lambda terminal: terminal["terminal_id"],
    "status": lambda terminal: terminal["status"],
    "end": _end,
    "size": lambda terminal: f"{terminal['width']}x{terminal['height']}",
    "created": lambda terminal: terminal["created_at"],
}


def _list(arguments: argparse.Namespace) -> int:
    path = routes.terminals(arguments.machine_id)
    show_pages(pages(connect(arguments), path, arguments), LIST, as_json=arguments.json)
    return 0


def _get(arguments: argparse.Namespace) -> int:
    path = routes.terminal(arguments.machine_id, arguments.terminal_id)
    show(connect(arguments).call("GET", path, query={"wait_ms": arguments.wait_ms}).json(), as_json=arguments.json)
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    path = routes.terminal(arguments.machine_id, arguments.terminal_id)
    terminal: Record = connect(arguments).call("DELETE", path).json()
    if arguments.json:
        show({name: value for name, value in terminal.items() if name != "stream_url"}, as_json=True)
    else:
        show({"terminal_id": terminal["terminal_id"], "deleted": True}, as_json=False)
    return 0


def _output(arguments: argparse.Namespace) -> int:
    path = f"{routes.terminal(arguments.machine_id, arguments.terminal_id)}/output"
    reply = connect(arguments).call("GET", path, headers={"accept": "application/octet-stream"})
    with open(1, "wb", closefd=False) as file:
        file.write(reply.content)
    return 0
