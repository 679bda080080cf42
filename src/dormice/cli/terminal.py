"""`dormice terminal`: a shell on a machine, in the terminal that this program runs in.

The terminal is the server's: it goes on when this program is left, killed or loses its connection, and `--attach` comes back to it.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from dormice.cli.commands import Parser
from dormice.cli.connect import connect, server_options
from dormice.cli.exec import OWN_FAILURE, variable, write
from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client.errors import NotFoundError

_WAIT_MS = 30_000
_PASSED_ON = ("TERM", "COLORTERM")


def declare(parser: Parser) -> None:
    parser.usage = "dormice terminal [options] MACHINE [-- COMMAND [ARGUMENT ...]]"
    parser.epilog = (
        "Ctrl-] then d leaves the terminal, which goes on; Ctrl-] twice types one. A connection that is lost is made again. "
        "Exit code: 0 when left; when the shell has ended its own, 128 + n if signal n ended it; 125 if Dormice failed. "
        "Examples: dormice terminal dm-…; dormice terminal dm-… -- python3; dormice terminal dm-… --attach term-…"
    )
    parser.failure_code = parser.usage_code = OWN_FAILURE
    parser.takes_argv = True
    parser.add_argument("machine_id", metavar="MACHINE")
    parser.add_argument("--attach", metavar="TERMINAL", help="come back to one instead of opening one")
    parser.add_argument("--shell", metavar="PROGRAM", help="instead of /bin/bash")
    parser.add_argument("--cwd", metavar="DIR", help="working directory (default /root)")
    parser.add_argument(
        "--env",
        action="append",
        type=variable,
        metavar="NAME[=VALUE]",
        help="set a variable, or pass on one from here",
    )
    server_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Attach to a new terminal or to one that is there, and return the exit code."""
    if arguments.attach and (arguments.argv or arguments.shell or arguments.cwd or arguments.env):
        return _fail("--attach comes back to a terminal as it is: leave out what would open one")
    if not (os.isatty(0) and os.isatty(1)):
        return _fail("stdin and stdout must be a terminal; dormice exec runs commands without one")
    connection = connect(arguments)
    record = _ready(connection, _found(connection, arguments) if arguments.attach else _opened(connection, arguments))
    if record["status"] in {"failed", "expired"}:
        return _fail(f"{record.get('error_code')}: {record.get('error_message') or record['status']}")
    after, late = None if arguments.attach else 0, arguments.attach and record["status"] != "ready"
    from dormice.cli.attachment import Attachment, raw  # noqa: PLC0415 - so late, because it loads the WebSocket library

    if record["status"] == "ready":
        attachment = Attachment(connection, record["machine_id"], record["terminal_id"], after)
        if attachment.run():
            again = f"dormice terminal {arguments.machine_id} --attach {record['terminal_id']}"
            print(f"\ndormice: left; come back with {again}", file=sys.stderr)
            return 0
        after = attachment.after
        record = _found_again(connection, record)
    rest = _shown_behind(connection, record, after or 0)
    with raw():
        write(1, rest)
    why = f"had ended before: exit code {_exit_code(record)}" if late else _ended_by_its_machine(connection, record)
    if why:
        print(f"\ndormice: {record['terminal_id']} {why}", file=sys.stderr)
    return _exit_code(record)


def _ended_by_its_machine(connection: Connection, record: dict[str, Any]) -> str | None:
    """How to say so, if it was."""
    if record.get("signal") is None:
        return None
    try:
        wanted = connection.call("GET", routes.machine(record["machine_id"])).json()["desired_state"]
    except NotFoundError:
        wanted = "destroyed"
    return {"sleeping": "ended: its machine was put to sleep", "destroyed": "ended: its machine was deleted"}.get(
        wanted
    )


def _fail(message: str) -> int:
    print(f"dormice terminal: {message}", file=sys.stderr)
    return OWN_FAILURE


def _opened(connection: Connection, arguments: argparse.Namespace) -> dict[str, Any]:
    size = os.get_terminal_size(0)
    here = {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
    body = {
        "width": max(size.columns, 1),
        "height": max(size.lines, 1),
        "shell": arguments.shell,
        "command": arguments.argv or None,
        "cwd": arguments.cwd,
        "env": {**here, **dict(arguments.env or ())},
    }
    reply = connection.call("POST", routes.terminals(arguments.machine_id), query={"wait_ms": _WAIT_MS}, body=body)
    record: dict[str, Any] = reply.json()
    return record


def _found(connection: Connection, arguments: argparse.Namespace) -> dict[str, Any]:
    path = routes.terminal(arguments.machine_id, arguments.attach)
    record: dict[str, Any] = connection.call("GET", path, query={"wait_ms": _WAIT_MS}).json()
    return record


def _found_again(connection: Connection, record: dict[str, Any]) -> dict[str, Any]:
    path = routes.terminal(record["machine_id"], record["terminal_id"])
    found: dict[str, Any] = connection.call("GET", path, query={"wait_ms": _WAIT_MS}).json()
    return found


def _ready(connection: Connection, record: dict[str, Any]) -> dict[str, Any]:
    while record["status"] == "wake_in_progress":
        record = _found_again(connection, record)
    return record


def _shown_behind(connection: Connection, record: dict[str, Any], after: int) -> bytes:
    """What it has shown that no connection has told us: it had ended before."""
    path = f"{routes.terminal(record['machine_id'], record['terminal_id'])}/output"
    reply = connection.call("GET", path, headers={"accept": "application/octet-stream"})
    return reply.content[max(after - int(reply.headers["x-dormice-offset"]), 0) :]


def _exit_code(record: dict[str, Any]) -> int:
    if record.get("signal") is not None:
        return 128 + int(record["signal"])
    return int(record.get("exit_code") or 0)
