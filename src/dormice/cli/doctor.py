"""`dormice doctor`: what this host lacks to run machines, and how to get it. Changes nothing."""

from __future__ import annotations

import argparse
import json
import sys

from dormice.cli.commands import Parser
from dormice.cli.printing import json_option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dormice.config import Settings
    from dormice.node.doctor import Check, Place
    from dormice.node.host_leftovers import Leftover

_COLOURS = {"ok": "32", "warn": "33", "fail": "31"}
OPTIONS = ("data_dir", "image_dir", "run_dir", "user", "instance", "network", "guest")


def declare(parser: Parser) -> None:
    parser.epilog = "Exit code: 0 if machines can run here, else 1. The options are those of `dormice up`."
    for name in OPTIONS:
        parser.add_argument(f"--{name.replace('_', '-')}", help=argparse.SUPPRESS)
    json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print each check as it is done; 0 if machines can run here."""
    from dormice.config import SettingsError, from_environment  # noqa: PLC0415 - loaded when needed
    from dormice.node.doctor import can_run, examine  # noqa: PLC0415 - loaded when needed

    given = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name) is not None}
    try:
        place = _place(from_environment(**given))
    except SettingsError as error:
        print(f"dormice doctor: {error}", file=sys.stderr)
        return 2
    checks = []
    for check in examine(place):
        _print(check, as_json=arguments.json)
        checks.append(check)
    fit = can_run(checks)
    if not arguments.json:
        print("Machines can run here." if fit else "Machines cannot run here yet.")
    return 0 if fit else 1


def _place(settings: Settings) -> Place:
    from dormice.config import SettingsError  # noqa: PLC0415 - loaded when needed
    from dormice.node.doctor import Place  # noqa: PLC0415 - loaded when needed

    try:
        guest = settings.guest_program
    except SettingsError:
        guest = None
    return Place(
        data_dir=settings.data,
        images_dir=settings.images,
        run_dir=settings.run,
        guest=guest,
        user=settings.user,
        instance=settings.instance,
        network=settings.machine_network(),
        leftovers=lambda: _leftovers(settings),
    )


def _leftovers(settings: Settings) -> list[Leftover]:
    from dormice.app.collect import collect  # noqa: PLC0415 - loaded when needed

    found: list[Leftover] = []
    collect(settings, found.append, dry_run=True)
    return found


def _print(check: Check, *, as_json: bool) -> None:
    if as_json:
        fields = {"name": check.name, "status": check.status, "detail": check.detail, "fix": check.fix}
        print(json.dumps(fields), flush=True)
        return
    word = f"{check.status:4}"
    if sys.stdout.isatty():
        word = f"\x1b[{_COLOURS[check.status]}m{word}\x1b[0m"
    print(f"{word}  {check.name}: {check.detail}", flush=True)
    if check.fix:
        print(f"      {check.fix}", flush=True)
