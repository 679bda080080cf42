"""`dormice machines artifacts`: files that executions have left behind. `--artifacts` of `dormice exec` asks for them."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing

from dormice.cli.commands import Parser
from dormice.cli.connect import connect
from dormice.cli.printing import Columns, Record, list_options, pages, printable, show_pages
from dormice.cli.subcommands import show_answer, subcommand
from dormice.client import routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

COLUMNS: Columns = {
    "artifact id": lambda artifact: artifact["artifact_id"],
    "execution id": lambda artifact: artifact.get("execution_id"),
    "size": lambda artifact: artifact["size_bytes"],
    "expires": lambda artifact: artifact.get("expires_at"),
    "name": lambda artifact: artifact["name"],
}


def declare(parser: Parser) -> None:
    parser.epilog = (
        "They outlive their execution and their machine. Example: dormice exec --artifacts 'out/*' dm-… -- make; "
        "dormice machines artifacts list --machine-id dm-…"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    listing = subcommand(commands, "list", "List a machine's artifacts, newest first", _list, of_machine=True)
    list_options(listing)
    retrieve = subcommand(
        commands, "retrieve", "Show an artifact, with a new download URL", _retrieve, aliases=["get"], of_machine=True
    )
    download = subcommand(commands, "download", "Write an artifact to a file", _download, of_machine=True, shows=False)
    download.add_argument(
        "--output", "-o", metavar="PATH", help="a file, a directory, or - for stdout (default: its name, here)"
    )
    download.add_argument("--quiet", "-q", action="store_true", help="show no progress")
    delete = subcommand(commands, "delete", "Delete an artifact", _delete, of_machine=True)
    for command in (retrieve, download, delete):
        command.add_argument("--artifact-id", metavar="ID", required=True)


def _list(arguments: argparse.Namespace) -> int:
    path = routes.artifacts(arguments.machine_id)
    show_pages(pages(connect(arguments), path, arguments), COLUMNS, as_json=arguments.json)
    return 0


def _retrieve(arguments: argparse.Namespace) -> int:
    return show_answer(arguments, "GET", routes.artifact(arguments.machine_id, arguments.artifact_id))


def _delete(arguments: argparse.Namespace) -> int:
    return show_answer(arguments, "DELETE", routes.artifact(arguments.machine_id, arguments.artifact_id))


def _download(arguments: argparse.Namespace) -> int:
    from pathlib import Path  # noqa: PLC0415 - loaded when needed

    from dormice.cli.transfers import Progress, save, to_stdout  # noqa: PLC0415 - loaded when needed

    connection, path = connect(arguments), routes.artifact(arguments.machine_id, arguments.artifact_id)
    artifact = connection.call("GET", path).json()
    target = None if arguments.output == "-" else _target(Path(arguments.output or "."), artifact)
    if target is not None and arguments.output is None and os.path.lexists(target):
        print(f"dormice: {target} is here already; --output says where to write it", file=sys.stderr)
        return 1
    progress = Progress(quiet=arguments.quiet)
    progress.begin(artifact["name"])
    try:
        with closing(connection.open(f"{path}/content", query={}, headers={})) as response:
            pieces = progress.over(response.chunks())
            if target is None:
                to_stdout(pieces)
                return 0
            save(target, pieces)
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"dormice: {error.filename or target}: {error.strerror or error}", file=sys.stderr)
        return 1
    finally:
        progress.end()
    print(target)
    return 0


def _target(place: Path, artifact: Record) -> Path:
    """Where to write it. Its name comes from a machine, and a name in `place` is all that it may be."""
    if not place.is_dir():
        return place
    name = printable(artifact["name"].rpartition("/")[2])
    return place / (name if name.strip(".") else artifact["artifact_id"])
