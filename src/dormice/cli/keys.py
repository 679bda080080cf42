"""`dormice keys`: API keys."""

from __future__ import annotations

import argparse

from dormice.cli.commands import Parser
from dormice.cli.connect import connect
from dormice.cli.printing import Columns, show_pages
from dormice.cli.subcommands import show_answer, subcommand
from dormice.client import routes

COLUMNS: Columns = {
    "key id": lambda key: key["key_id"],
    "organization": lambda key: key["organization"],
    "name": lambda key: key.get("name"),
    "prefix": lambda key: key["prefix"],
    "admin": lambda key: "yes" if key["admin"] else "no",
    "created": lambda key: key["created_at"],
    "revoked": lambda key: key.get("revoked_at"),
}


def declare(parser: Parser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    create = subcommand(commands, "create", "Make a key; its secret is shown this once", _create)
    create.add_argument("--organization", metavar="NAME", help="whose key; made if it is new (default: your own)")
    create.add_argument("--name", help="what the key is for")
    create.add_argument("--admin", action="store_true", help="a key that may make and revoke keys")
    subcommand(commands, "list", "List the keys, without their secrets", _list)
    revoke = subcommand(commands, "revoke", "Make a key invalid from now on", _revoke)
    revoke.add_argument("key_id", metavar="KEY-ID")


def _create(arguments: argparse.Namespace) -> int:
    body = {"organization": arguments.organization, "name": arguments.name, "admin": arguments.admin or None}
    return show_answer(arguments, "POST", routes.KEYS, body)


def _list(arguments: argparse.Namespace) -> int:
    show_pages([connect(arguments).call("GET", routes.KEYS).json()["items"]], COLUMNS, as_json=arguments.json)
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    return show_answer(arguments, "DELETE", routes.key(arguments.key_id))
