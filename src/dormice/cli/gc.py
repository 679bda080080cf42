"""`dormice gc`: removes what crashes have left of an instance on this host."""

from __future__ import annotations

import argparse
import json
import sys

from dormice.cli.commands import Parser
from dormice.cli.printing import json_option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dormice.node.host_leftovers import Leftover

_OPTIONS = ("data_dir", "image_dir", "run_dir", "instance", "network")


def declare(parser: Parser) -> None:
    parser.description = (
        "Remove what crashes have left on this host: cgroups, interfaces, rules, addresses, mounts, run directories, half-made disks, "
        "disks of machines that are no more, and image versions that no machine uses. Safe while Dormice runs: what runs, "
        "or may be somebody's, is left alone, and named where it is a disk."
    )
    parser.epilog = (
        "Exit code: 0 if it is done, 1 if something could not be removed, 2 if it cannot work as it is set. "
        "The options are those of `dormice up`."
    )
    for name in _OPTIONS:
        parser.add_argument(f"--{name.replace('_', '-')}", help=argparse.SUPPRESS)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument(
        "--unknown-disks",
        action="store_true",
        help="also remove disks that the store does not know and that are not older than it: "
        "after a restore, those of all machines that were made since the backup",
    )
    json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Remove and print one thing after the other."""
    from dormice.app.collect import collect  # noqa: PLC0415 - loaded when needed
    from dormice.config import MISCONFIGURED, SettingsError, from_environment  # noqa: PLC0415 - loaded when needed

    given = {name: getattr(arguments, name) for name in _OPTIONS if getattr(arguments, name) is not None}
    report = _Report(dry_run=arguments.dry_run, as_json=arguments.json)
    try:
        settings = from_environment(**given)
        notes = collect(settings, report.handle, dry_run=arguments.dry_run, unknown_disks=arguments.unknown_disks)
        report.end(notes)
    except (SettingsError, OSError) as error:
        print(f"dormice gc: {error}", file=sys.stderr)
        return MISCONFIGURED
    return 1 if report.failed else 0


class _Report:
    """Says what becomes of each thing."""

    def __init__(self, *, dry_run: bool, as_json: bool) -> None:
        self._dry_run = dry_run
        self._as_json = as_json
        self._count = self._bytes = self.failed = 0

    def handle(self, leftover: Leftover) -> None:
        error = ""
        if not self._dry_run:
            try:
                leftover.remove()
            except OSError as failure:
                self.failed += 1
                error = str(failure)
        if not error:
            self._count += 1
            self._bytes += leftover.size
        self._print(leftover, error)

    def _print(self, leftover: Leftover, error: str) -> None:
        removed = not self._dry_run and not error
        if self._as_json:
            fields = {"kind": leftover.kind, "what": leftover.what, "size": leftover.size}
            print(json.dumps({**fields, "removed": removed, "error": error or None}), flush=True)
        else:
            word = "failed" if error else "removed" if removed else "left"
            size = f" ({leftover.size >> 20} MiB)" if leftover.size >> 20 else ""
            print(f"{word:8}{leftover.kind}: {leftover.what}{size}{': ' if error else ''}{error}", flush=True)

    def end(self, notes: list[str]) -> None:
        for note in notes:
            print(f"dormice gc: left alone: {note}", file=sys.stderr)
        if not self._as_json:
            verb = "to remove" if self._dry_run else "removed"
            print(f"{self._count} {verb}, {self._bytes >> 20} MiB" + (f"; {self.failed} failed" if self.failed else ""))
