"""`dormice workers`: who runs workflows. `dormice worker` is one."""

from __future__ import annotations

import argparse

from dormice.cli.commands import Parser
from dormice.cli.printing import Columns, show_pages
from dormice.cli.project import command, connect
from dormice.client import routes

COLUMNS: Columns = {
    "worker id": lambda worker: worker["id"],
    "status": lambda worker: worker["status"],
    "deployment": lambda worker: worker["deployment_id"],
    "mode": lambda worker: worker["mode"],
    "runs": lambda worker: f"{worker['current_executions']} of {worker['max_concurrent_executions']}",
    "last heard of": lambda worker: worker["last_heartbeat"],
    "url": lambda worker: worker["push_endpoint_url"],
}


def declare(parser: Parser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command(commands, "list", "List the workers, the latest first", _list)


def _list(arguments: argparse.Namespace) -> int:
    show_pages([connect(arguments).call("GET", routes.WORKERS).json()["workers"]], COLUMNS, as_json=arguments.json)
    return 0
