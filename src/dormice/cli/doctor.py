"""`dormice doctor`: what this host lacks, and how to get it."""

from __future__ import annotations

import argparse

from dormice.cli.commands import Parser


def declare(parser: Parser) -> None:
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print each check; 0 if machines can run here."""
    raise NotImplementedError
