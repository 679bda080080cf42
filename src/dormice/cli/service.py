"""`dormice up`, `dormice server`, `dormice node`: the processes themselves."""

from __future__ import annotations

import argparse

from dormice.cli.commands import Parser

_OPTIONS = {
    "--data-dir": ("DIR", "where everything is kept (DORMICE_DATA_DIR, /var/lib/dormice)"),
    "--listen": ("ADDRESS", "where the server listens (DORMICE_LISTEN, 127.0.0.1:7433)"),
    "--image-dir": ("DIR", "where images of machines are kept (DORMICE_IMAGE_DIR)"),
    "--driver": ("NAME", "what machines are: container, or process (no isolation)"),
    "--user": ("NAME", "whom the server becomes after it has begun to listen"),
}


def declare(parser: Parser) -> None:
    for option, (metavar, summary) in _OPTIONS.items():
        parser.add_argument(option, metavar=metavar, help=summary)
    parser.set_defaults(run=run, role=parser.prog.rpartition(" ")[2])


def run(arguments: argparse.Namespace) -> int:
    """Run until a signal ends it."""
    from dormice import app, config  # noqa: PLC0415 - the whole server, loaded only here

    names = [option.removeprefix("--").replace("-", "_") for option in _OPTIONS]
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    role = {"up": app.up, "server": app.server, "node": app.node}[arguments.role]
    role(config.from_environment(**given))
    return 0
