"""`dormice machines previews`: the records of previews, and links to them. `dormice preview` is the way to make one and open it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from dormice.cli.commands import Parser
from dormice.cli.connect import connect, server_options
from dormice.cli.printing import Columns, json_option, list_options, pages, show, show_pages
from dormice.client import routes

COLUMNS: Columns = {
    "preview id": lambda preview: preview["preview_id"],
    "status": lambda preview: preview["status"],
    "port": lambda preview: preview["port"],
    "visibility": lambda preview: preview["visibility"],
    "url": lambda preview: preview["url"],
    "expires": lambda preview: preview["expires_at"],
}


def declare(parser: Parser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    create = _command(commands, "create", "Serve a port", _create)
    create.add_argument("--port", type=port, metavar="N", required=True)
    creation_options(create)
    listing = _command(commands, "list", "List a machine's previews, newest first", _list)
    list_options(listing)
    retrieve = _command(commands, "retrieve", "Show a preview", _retrieve, aliases=["get"])
    delete = _command(commands, "delete", "Serve it no longer", _delete)
    link = _command(commands, "link", "Make a signed link, which opens it without a key", _link)
    link.add_argument("--expires-in-seconds", type=int, metavar="N", help="how long the link lets in (default 3600)")
    for command in (retrieve, delete, link):
        command.add_argument("--preview-id", metavar="ID", required=True)


def port(text: str) -> int:
    """Raises ArgumentTypeError. Which numbers are ports is the server's to say."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 65535") from None


def creation_options(parser: Parser) -> None:
    parser.add_argument("--protocol", choices=["http", "https"], help="what is spoken with the port (default http)")
    parser.add_argument(
        "--visibility",
        choices=["private", "org", "public"],
        help="who may open it: your key and links, the organization's keys and links, or whoever knows the address "
        "(default private)",
    )
    parser.add_argument("--expires-in-seconds", type=int, metavar="N", help="how long it is served")
    parser.add_argument("--idempotency-key", metavar="KEY")


def _command(
    commands: argparse._SubParsersAction[Parser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
    aliases: list[str] | None = None,
) -> Parser:
    command = commands.add_parser(name, help=summary, description=summary + ".", aliases=aliases or [])
    command.set_defaults(run=run)
    command.add_argument("--machine-id", metavar="ID", required=True)
    server_options(command)
    json_option(command)
    return command


def _create(arguments: argparse.Namespace) -> int:
    body = {name: getattr(arguments, name) for name in ("port", "protocol", "visibility", "expires_in_seconds")}
    path = routes.previews(arguments.machine_id)
    reply = connect(arguments).call("POST", path, body=body, idempotency_key=arguments.idempotency_key)
    show(reply.json(), as_json=arguments.json)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    path = routes.previews(arguments.machine_id)
    show_pages(pages(connect(arguments), path, arguments), COLUMNS, as_json=arguments.json)
    return 0


def _retrieve(arguments: argparse.Namespace) -> int:
    reply = connect(arguments).call("GET", routes.preview(arguments.machine_id, arguments.preview_id))
    show(reply.json(), as_json=arguments.json)
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    reply = connect(arguments).call("DELETE", routes.preview(arguments.machine_id, arguments.preview_id))
    show(reply.json(), as_json=arguments.json)
    return 0


def _link(arguments: argparse.Namespace) -> int:
    path = f"{routes.preview(arguments.machine_id, arguments.preview_id)}/links"
    body = {"expires_in_seconds": arguments.expires_in_seconds}
    show(connect(arguments).call("POST", path, body=body).json(), as_json=arguments.json)
    return 0
