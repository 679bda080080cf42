"""Commands below a command, as most of them are: they talk to the server, and show what it answers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

from dormice.cli.commands import Parser
from dormice.cli.connect import connect, server_options
from dormice.cli.printing import json_option, show


def subcommand(
    commands: argparse._SubParsersAction[Parser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
    aliases: Sequence[str] = (),
    *,
    of_machine: bool = False,
    shows: bool = True,
) -> Parser:
    """Return the parser of a new one. `of_machine`: it needs a machine; `shows`: it has records to show, also as JSON."""
    command = commands.add_parser(name, help=summary, description=summary + ".", aliases=aliases)
    command.set_defaults(run=run)
    if of_machine:
        command.add_argument("--machine-id", metavar="ID", required=True)
    server_options(command)
    if shows:
        json_option(command)
    return command


def show_answer(
    arguments: argparse.Namespace,
    method: str,
    path: str,
    body: Mapping[str, object] | None = None,
    *,
    query: Mapping[str, str | int | bool | None] | None = None,
    idempotency_key: str | None = None,
) -> int:
    """Ask, and show the record that is the answer."""
    reply = connect(arguments).call(method, path, query=query, body=body, idempotency_key=idempotency_key)
    show(reply.json(), as_json=arguments.json)
    return 0
