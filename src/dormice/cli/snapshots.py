"""`dormice snapshots`: copies of machines' disks."""

from __future__ import annotations

import argparse
import sys

from dormice.cli.commands import Parser
from dormice.cli.connect import connect, server_options
from dormice.cli.printing import Columns, json_option, list_options, pages, show, show_pages
from dormice.client import routes

COLUMNS: Columns = {
    "snapshot id": lambda snapshot: snapshot["snapshot_id"],
    "name": lambda snapshot: snapshot["name"],
    "status": lambda snapshot: snapshot["status"],
    "machine id": lambda snapshot: snapshot["machine_id"],
    "disk": lambda snapshot: f"{snapshot['storage_gib']} GiB",
    "used": lambda snapshot: f"{snapshot['storage_bytes'] >> 20} MiB",
    "created": lambda snapshot: snapshot["created_at"],
}


def declare(parser: Parser) -> None:
    parser.epilog = (
        "A snapshot stays when its machine is deleted. Example: dormice snapshots create --machine-id dm-… --name ready; "
        "dormice machines create --snapshot snap-…"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    create = commands.add_parser("create", help="Copy the disk of a machine, which may run, as it is now")
    create.set_defaults(run=_create)
    create.add_argument("--machine-id", metavar="ID", required=True)
    create.add_argument("--name", help="what to call it; need not be unique")
    create.add_argument("--idempotency-key", metavar="KEY")
    listing = commands.add_parser("list", help="List snapshots, the newest first")
    listing.set_defaults(run=_list)
    listing.add_argument("--machine-id", metavar="ID", help="those of this machine")
    list_options(listing)
    retrieve = commands.add_parser("retrieve", help="Show a snapshot", aliases=["get"])
    retrieve.set_defaults(run=_retrieve)
    delete = commands.add_parser("delete", help="Delete a snapshot; machines that were made from it stay")
    delete.set_defaults(run=_delete)
    for command in (retrieve, delete):
        command.add_argument("--snapshot-id", metavar="ID", required=True)
    for command in (create, listing, retrieve, delete):
        server_options(command)
        json_option(command)


def _create(arguments: argparse.Namespace) -> int:
    connection, path = connect(arguments), routes.snapshots_of(arguments.machine_id)
    reply = connection.call("POST", path, body={"name": arguments.name}, idempotency_key=arguments.idempotency_key)
    snapshot = reply.json()
    while snapshot["status"] == "creating":
        path = routes.snapshot(snapshot["snapshot_id"])
        snapshot = connection.call("GET", path, query={"wait_ms": 30_000}).json()
    show(snapshot, as_json=arguments.json)
    if snapshot["status"] == "failed":
        print(f"dormice: {snapshot['snapshot_id']} has failed: {snapshot['error']}", file=sys.stderr)
    return 0 if snapshot["status"] == "ready" else 1


def _list(arguments: argparse.Namespace) -> int:
    path = routes.snapshots_of(arguments.machine_id) if arguments.machine_id else routes.SNAPSHOTS
    show_pages(pages(connect(arguments), path, arguments), COLUMNS, as_json=arguments.json)
    return 0


def _retrieve(arguments: argparse.Namespace) -> int:
    show(connect(arguments).call("GET", routes.snapshot(arguments.snapshot_id)).json(), as_json=arguments.json)
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    show(connect(arguments).call("DELETE", routes.snapshot(arguments.snapshot_id)).json(), as_json=arguments.json)
    return 0
