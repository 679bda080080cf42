"""`dormice limits`: every limit and default of the server."""

from __future__ import annotations

import argparse
import json

from dormice.cli.commands import Parser
from dormice.cli.connect import connect, server_options
from dormice.cli.printing import json_option
from dormice.client import routes


def declare(parser: Parser) -> None:
    server_options(parser)
    json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print them, a line each."""
    limits = connect(arguments).call("GET", routes.LIMITS).json()
    if arguments.json:
        print(json.dumps(limits))
        return 0
    rows = [(f"{group}.{name}", value) for group, values in limits.items() for name, value in values.items()]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"{name:{width}}  {value if isinstance(value, str) else json.dumps(value)}")
    return 0
