"""What commands about workflows share: the project that they are about."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable

from dormice.cli.commands import Parser
from dormice.cli.connect import connection, server_options
from dormice.cli.printing import json_option
from dormice.client import settings
from dormice.client._sync.connection import Connection, Reply

PROJECT = "DORMICE_PROJECT_ID"


def command(
    commands: argparse._SubParsersAction[Parser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
    aliases: list[str] | None = None,
) -> Parser:
    """Return the parser of a new command, with the options that all of them have."""
    parser = commands.add_parser(name, help=summary, description=summary + ".", aliases=aliases or [])
    parser.set_defaults(run=run)
    parser.add_argument(
        "--project", type=word, metavar="ID", help=f"the project ({PROJECT}; else the organization's default one)"
    )
    server_options(parser)
    json_option(parser)
    return parser


def word(text: str) -> str:
    """What may stand in a path or a header. Raises ArgumentTypeError."""
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError("must be a name or an id: not empty, and on one line")
    return text


def document(text: str) -> str:
    """JSON, as it was written; `-` is what standard input has. Raises ArgumentTypeError."""
    given = sys.stdin.read() if text == "-" else text
    try:
        json.loads(given)
    except ValueError:
        raise argparse.ArgumentTypeError(
            """must be JSON: a text needs quotes of its own, such as '"Ada"', and - reads it from stdin"""
        ) from None
    return given


def connect(arguments: argparse.Namespace) -> Connection:
    """Without a key if there is none: a server in local mode needs none. Raises ConfigurationError if the base URL is none."""
    found = settings.resolve(base_url=arguments.base_url, key_required=False)
    return connection(found._replace(project_id=arguments.project or os.environ.get(PROJECT)))


def post(
    to: Connection, path: str, body: dict[str, object], *, idempotency_key: str | None = None, **documents: str
) -> Reply:
    """POST what is not None of `body`, and JSON documents as they were written."""
    fields = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in body.items() if value is not None]
    fields += [f"{json.dumps(name)}: {text}" for name, text in documents.items()]
    content = f"{{{', '.join(fields)}}}".encode()
    headers = {"content-type": "application/json"}
    return to.call("POST", path, content=content, headers=headers, idempotency_key=idempotency_key)
