"""`dormice version`."""

from __future__ import annotations

import argparse

from dormice.cli.commands import Parser


def declare(parser: Parser) -> None:
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Print it."""
    from importlib.metadata import version  # noqa: PLC0415 - slow to load

    print(version("dormice"))
    return 0
