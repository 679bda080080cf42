"""`dormice workflows`: what workers offer."""

from __future__ import annotations

import argparse

from dormice.cli.commands import Parser
from dormice.cli.printing import Columns, show_pages
from dormice.cli.project import command, connect
from dormice.client import routes

COLUMNS: Columns = {
    "workflow": lambda workflow: workflow["workflow_id"],
    "deployment": lambda workflow: workflow["deployment_id"],
    "by events": lambda workflow: "yes" if workflow["trigger_on_event"] else "no",
    "created": lambda workflow: workflow["created_at"],
}


def declare(parser: Parser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command(commands, "list", "List the workflows that workers have offered, by deployment", _list)


def _list(arguments: argparse.Namespace) -> int:
    show_pages([connect(arguments).call("GET", routes.WORKFLOWS).json()], COLUMNS, as_json=arguments.json)
    return 0
