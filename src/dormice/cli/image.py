"""`dormice image`: the images of machines on this host. Needs no server, but root."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from dormice.cli.commands import Parser
from dormice.cli.printing import json_option


def declare(parser: Parser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    build = _command(commands, "build", "Build the default Debian image with mmdebstrap", _build)
    build.add_argument("--name", default="default", help="what to call it (default: default)")
    build.add_argument(
        "--ca", action="append", metavar="FILE", default=[], help="a CA in PEM to trust inside; repeatable"
    )
    build.add_argument("--mirror", metavar="URL", help="where Debian packages come from (default: as on this host)")
    imported = _command(
        commands, "import", "Make an image of an OCI layout or a tarball of a root file system", _import
    )
    imported.add_argument("name", metavar="NAME", help="what to call it")
    imported.add_argument(
        "source", metavar="PATH", help="a directory with an OCI layout, a tar of one, or a tar of files"
    )
    listing = _command(commands, "list", "List the images", _list)
    json_option(listing)
    remove = _command(commands, "remove", "Forget an image; machines that run it go on", _remove)
    remove.add_argument("name", metavar="NAME")


def _command(
    commands: argparse._SubParsersAction[Parser], name: str, summary: str, run: Callable[[argparse.Namespace], int]
) -> Parser:
    command = commands.add_parser(name, help=summary, description=summary + ".")
    command.add_argument("--data-dir", metavar="DIR", help="of the server and node (DORMICE_DATA_DIR)")
    command.add_argument("--image-dir", metavar="DIR", help="where images are kept (DORMICE_IMAGE_DIR)")
    command.set_defaults(run=lambda arguments: _explained(run, arguments))
    return command


def _explained(run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    from dormice.config import SettingsError  # noqa: PLC0415 - loaded when needed
    from dormice.node.images import ImageFailure  # noqa: PLC0415 - loaded when needed

    try:
        return run(arguments)
    except (ImageFailure, SettingsError, PermissionError) as failure:
        print(f"dormice image: {failure}", file=sys.stderr)
        return 1


def _directory(arguments: argparse.Namespace) -> Path:
    from dormice.config import from_environment  # noqa: PLC0415 - loaded when needed

    given = {name: getattr(arguments, name) for name in ("data_dir", "image_dir") if getattr(arguments, name)}
    return from_environment(**given).images


def _progress(line: str) -> None:
    print(line, file=sys.stderr)


def _build(arguments: argparse.Namespace) -> int:
    from dormice.node.debian import build_default  # noqa: PLC0415 - loaded when needed

    authorities = [Path(path) for path in arguments.ca]
    record = build_default(
        _directory(arguments), _progress, ca=authorities, mirror=arguments.mirror, name=arguments.name
    )
    print(f"{record.name}: {record.size >> 20} MiB from {record.source}")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from dormice.node.image_import import import_image  # noqa: PLC0415 - loaded when needed

    record = import_image(_directory(arguments), arguments.name, Path(arguments.source), _progress)
    print(f"{record.name}: {record.size >> 20} MiB from {record.source}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from dormice.node.images import list_images  # noqa: PLC0415 - loaded when needed

    images = list_images(_directory(arguments))
    width = max([4, *(len(image.name) for image in images)])
    if not arguments.json:
        print(f"{'NAME':{width}}  {'SIZE':>9}  {'CREATED':20}  SOURCE")
    for image in images:
        if arguments.json:
            fields = {"name": image.name, "size": image.size, "created": image.created, "source": image.source}
            print(json.dumps({**fields, "environment": dict(image.environment)}))
        else:
            print(f"{image.name:{width}}  {image.size >> 20:5} MiB  {image.created:20}  {image.source}")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    from dormice.node.images import remove_image  # noqa: PLC0415 - loaded when needed

    remove_image(_directory(arguments), arguments.name)
    return 0
