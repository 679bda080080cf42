"""`dormice up`, `dormice server`, `dormice node`: the processes themselves. Each setting is an option."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module

from dormice.cli.commands import Parser

OPTIONS = {
    "data_dir": ("DIR", "where everything that must last is kept"),
    "listen": ("HOST:PORT", "where the HTTP API listens; port 0 takes a free one"),
    "ssh_listen": ("HOST:PORT", "where SSH listens; port 0 takes a free one, off: nowhere"),
    "ssh_endpoint": ("HOST[:PORT]", "how clients reach it, where that is not as it is written there"),
    "image_dir": ("DIR", "where images of machines are kept; default: images in the data directory"),
    "run_dir": ("DIR", "sockets and mount points; default: /run/INSTANCE as root, else run in the data directory"),
    "driver": ("NAME", "container, or process: no isolation at all, to try it out without root"),
    "user": ("NAME", "whom the server becomes once it listens"),
    "instance": ("NAME", "names cgroups, interfaces and rules; 1 to 8 of a-z, 0-9"),
    "network": ("CIDR", "the addresses of machines"),
    "first_uid": ("UID", "start of the host's uids that machines use"),
    "pool_size": ("N", "disks and networks that are prepared in advance"),
    "disk_mib_per_second": ("MIB", "what one machine may read, and write, of its disk; 0: no bound"),
    "storage_reserve_gib": ("GIB", "storage of the host that is never promised to machines"),
    "guest": ("FILE", "the guest's binary"),
    "local_mode": ("", "workflows without keys and with projects made on first use; on a loopback address only"),
    "push_allow": ("PLACES", "networks and names, with commas between, where workers that are called may live"),
    "webhook_allow": (
        "PLACES",
        "networks and names, with commas between, where webhooks may lead besides public addresses",
    ),
    "terminals_by_id": ("", "who knows a terminal's id opens its stream without a key, for SDK 0.2 to 0.4"),
    "preview_url": ("URL", "where previews are seen: https://*.DOMAIN for hosts of their own, https://HOST for paths"),
    "log_level": ("LEVEL", "debug, info, warning or error"),
}
"""By the names of the settings. `api_key` is none of them: what is on a command line is seen by every user."""


def declare(parser: Parser) -> None:
    parser.epilog = "Each option can also be set in the environment: --data-dir is DORMICE_DATA_DIR."
    for name, (metavar, summary) in OPTIONS.items():
        option = f"--{name.replace('_', '-')}"
        if metavar:
            parser.add_argument(option, metavar=metavar, help=summary)
        else:
            parser.add_argument(option, action="store_const", const="true", help=summary)
    parser.set_defaults(run=run, role=parser.prog.rpartition(" ")[2])


def run(arguments: argparse.Namespace) -> int:
    """Run until a signal ends it. Returns 2 when it cannot work as it is set."""
    from dormice import config  # noqa: PLC0415 - loaded when needed
    from dormice.node.runtime import RuntimeFailure  # noqa: PLC0415
    from dormice.store.interface import StoreUnavailable  # noqa: PLC0415

    given = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name) is not None}
    role: Callable[[config.Settings], int | None] = getattr(
        import_module(f"dormice.app.{arguments.role}"), arguments.role
    )
    try:
        return role(config.from_environment(**given)) or 0
    except (config.SettingsError, RuntimeFailure, StoreUnavailable) as error:
        # In one write even when Python buffers nothing: under `up`, another process writes to the same stream.
        print(f"dormice: {error}\n", end="", file=sys.stderr)
        return config.MISCONFIGURED
