"""`dormice machines previews`: the records of previews, and links to them. `dormice preview` is the way to make one and open it."""

from __future__ import annotations

import argparse

from dormice.cli.commands import Parser
from dormice.cli.connect import connect
from dormice.cli.printing import Columns, list_options, pages, show_pages
from dormice.cli.subcommands import show_answer, subcommand
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
    create = subcommand(commands, "create", "Serve a port", _create, of_machine=True)
    create.add_argument("--port", type=port, metavar="N", required=True)
    creation_options(create)
    listing = subcommand(commands, "list", "List a machine's previews, newest first", _list, of_machine=True)
    list_options(listing)
    retrieve = subcommand(commands, "retrieve", "Show a preview", _retrieve, aliases=["get"], of_machine=True)
    delete = subcommand(commands, "delete", "Serve it no longer", _delete, of_machine=True)
    link = subcommand(commands, "link", "Make a signed link, which opens it without a key", _link, of_machine=True)
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


def _create(arguments: argparse.Namespace) -> int:
    body = {name: getattr(arguments, name) for name in ("port", "protocol", "visibility", "expires_in_seconds")}
    path = routes.previews(arguments.machine_id)
    return show_answer(arguments, "POST", path, body, idempotency_key=arguments.idempotency_key)


def _list(arguments: argparse.Namespace) -> int:
    path = routes.previews(arguments.machine_id)
    show_pages(pages(connect(arguments), path, arguments), COLUMNS, as_json=arguments.json)
    return 0


def _retrieve(arguments: argparse.Namespace) -> int:
    return show_answer(arguments, "GET", routes.preview(arguments.machine_id, arguments.preview_id))


def _delete(arguments: argparse.Namespace) -> int:
    return show_answer(arguments, "DELETE", routes.preview(arguments.machine_id, arguments.preview_id))


def _link(arguments: argparse.Namespace) -> int:
    path = f"{routes.preview(arguments.machine_id, arguments.preview_id)}/links"
    return show_answer(arguments, "POST", path, {"expires_in_seconds": arguments.expires_in_seconds})
