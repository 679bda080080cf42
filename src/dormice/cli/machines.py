"""`dormice machines`: machines, and with `dormice machines executions` and `artifacts` what runs on them and what that leaves."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from dormice.cli import artifacts, executions, previews
from dormice.cli.commands import Parser
from dormice.cli.connect import connect
from dormice.cli.printing import Columns, Record, list_options, pages, show, show_pages
from dormice.cli.subcommands import subcommand
from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client._sync.streams import events_of_one_connection

POLL_MS = 30_000

COLUMNS: Columns = {
    "machine id": lambda machine: machine["machine_id"],
    "phase": lambda machine: machine["phase"],
    "vcpu": lambda machine: machine["vcpu"],
    "memory": lambda machine: f"{machine['memory_mib']} MiB",
    "disk": lambda machine: f"{machine['storage_gib']} GiB",
    "autosleep": lambda machine: f"{machine['autosleep_seconds']} s" if machine["autosleep_seconds"] else "never",
    "image": lambda machine: machine.get("image"),
    "created": lambda machine: machine.get("created_at"),
}


def declare(parser: Parser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    create = subcommand(commands, "create", "Make a machine", _create)
    _sizes(create)
    _egress_options(create)
    source = create.add_mutually_exclusive_group()
    source.add_argument("--image", metavar="NAME", help="an imported image (default: default)")
    source.add_argument("--snapshot", metavar="ID", help="a snapshot that its disk begins as a copy of")
    _write_options(create)
    fork = subcommand(commands, "fork", "Make a machine from another one's present disk", _fork, of_machine=True)
    fork.epilog = "What is left out is as in the other machine. Example: dormice machines fork --machine-id dm-… --wait"
    _sizes(fork)
    _egress_options(fork)
    _write_options(fork)
    subcommand(commands, "retrieve", "Show a machine", _retrieve, aliases=["get"], of_machine=True)
    listing = subcommand(commands, "list", "List the machines of the organization", _list)
    list_options(listing)
    update = subcommand(commands, "update", "Change a machine", _update, of_machine=True)
    _sizes(update)
    _egress_options(update)
    update.add_argument("--idempotency-key", metavar="KEY")
    for name, summary, run in (
        ("delete", "Destroy a machine and its disk", _delete),
        ("sleep", "End a machine's processes and keep its disk", _sleep),
        ("wake", "Start a sleeping machine", _wake),
    ):
        command = subcommand(commands, name, summary, run, of_machine=True)
        _write_options(command)
    reboot = subcommand(commands, "reboot", "Stop a machine and start it again from its disk", _reboot, of_machine=True)
    reboot.add_argument("--force", action="store_true", help="kill at once, without a grace")
    _write_options(reboot)
    autoresizing = subcommand(
        commands,
        "autoresizing",
        "Have memory raised when a machine is short of it, or show whether it is",
        _autoresizing,
    )
    autoresizing.epilog = (
        "A machine's setting is in effect while the organization's is on too; --json prints the one that was asked for. "
        "Example: dormice machines autoresizing on --machine-id dm-…"
    )
    autoresizing.add_argument("--machine-id", metavar="ID", help="without it: whether the organization allows it")
    autoresizing.add_argument("setting", nargs="?", choices=("on", "off"), help="without it, nothing is changed")
    watch = subcommand(commands, "watch", "Follow a machine to the state that it is to have", _watch, of_machine=True)
    watch.add_argument("--last-event-id", metavar="ID", help="go on behind this event")
    executions.declare(
        commands.add_parser("executions", help="Commands on a machine", description="Commands on a machine.")
    )
    left = "Files that executions have left behind"
    artifacts.declare(commands.add_parser("artifacts", help=left, description=left + "."))
    served = "Ports of a machine that are served"
    previews.declare(commands.add_parser("previews", help=served, description=served + "."))


def _sizes(parser: Parser) -> None:
    parser.add_argument("--vcpu", type=float, metavar="N", help="processors, in quarters")
    parser.add_argument("--memory-mib", type=int, metavar="MIB")
    parser.add_argument(
        "--storage-gib",
        type=int,
        metavar="GIB",
        help="a disk can grow, not shrink; a running machine may show it from its next start on",
    )
    parser.add_argument("--autosleep", metavar="TIME", help="idle time before it sleeps: 30s, 5m, 1h30m, or never")


def _egress_options(parser: Parser) -> None:
    parser.add_argument(
        "--egress",
        action="append",
        metavar="WHAT",
        help="what it may reach: public, none, or (several times) a name such as example.com or *.pypi.org, or a network",
    )


def _write_options(parser: Parser) -> None:
    parser.add_argument("--wait", action="store_true", help="return when it is done (exit 1 if the machine fails)")
    parser.add_argument("--idempotency-key", metavar="KEY")


def _create(arguments: argparse.Namespace) -> int:
    body = {**_given_sizes(arguments), "image": arguments.image, "snapshot": arguments.snapshot}
    return _write(arguments, "POST", routes.MACHINES, body)


def _fork(arguments: argparse.Namespace) -> int:
    return _write(arguments, "POST", f"{routes.machine(arguments.machine_id)}/fork", _given_sizes(arguments))


def _update(arguments: argparse.Namespace) -> int:
    arguments.wait = False
    return _write(arguments, "PATCH", routes.machine(arguments.machine_id), _given_sizes(arguments))


def _delete(arguments: argparse.Namespace) -> int:
    return _write(arguments, "DELETE", routes.machine(arguments.machine_id), None)


def _sleep(arguments: argparse.Namespace) -> int:
    return _write(arguments, "POST", f"{routes.machine(arguments.machine_id)}/sleep", None)


def _wake(arguments: argparse.Namespace) -> int:
    return _write(arguments, "POST", f"{routes.machine(arguments.machine_id)}/wake", None)


def _reboot(arguments: argparse.Namespace) -> int:
    force = "?force=true" if arguments.force else ""
    return _write(arguments, "POST", f"{routes.machine(arguments.machine_id)}/reboot{force}", None)


def _autoresizing(arguments: argparse.Namespace) -> int:
    connection, path = connect(arguments), routes.autoresizing(arguments.machine_id)
    if arguments.setting is None:
        reply = connection.call("GET", path)
    else:
        reply = connection.call("PUT", path, body={"enabled": arguments.setting == "on"})
    if arguments.json:
        show(reply.json(), as_json=True)
        return 0
    own = reply.json()["enabled"]
    if arguments.machine_id is not None:
        allowed = connection.call("GET", routes.POLICY).json()["enabled"]
        settings = {"machine": own, "organization": allowed, "in effect": own and allowed}
    else:
        settings = {"organization": own}
    show({whose: "on" if setting else "off" for whose, setting in settings.items()}, as_json=False)
    return 0


def _given_sizes(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(arguments, name) for name in ("vcpu", "memory_mib", "storage_gib", "autosleep")}
    return {**given, "egress": _egress(arguments.egress)}


def _egress(words: list[str] | None) -> str | dict[str, list[str]] | None:
    match words:
        case None:
            return None
        case ["public" | "none" as word]:
            return word
    return {"allow": words}


def _write(arguments: argparse.Namespace, method: str, path: str, body: dict[str, Any] | None) -> int:
    connection = connect(arguments)
    reply = connection.call(method, path, body=body, idempotency_key=arguments.idempotency_key)
    machine: Record = reply.json()
    if not arguments.wait:
        _show(machine, as_json=arguments.json)
        return 0
    wanted = machine["desired_state"]
    machine = _settled(connection, machine)
    _show(machine, as_json=arguments.json)
    return _outcome(machine, wanted)


def _show(machine: Record, *, as_json: bool) -> None:
    """The machine; people get of its status what the other fields do not say, a line each."""
    if as_json:
        show(machine, as_json=True)
        return
    status = {"reason": machine["status"]["reason"], "last_error": machine["status"].get("last_error")}
    show({**{name: value for name, value in machine.items() if name != "status"}, **status}, as_json=False)


def _outcome(machine: Record, wanted: str) -> int:
    """0 if the machine became what it was to be, else 1 and a line that says why."""
    phase, status = machine["phase"], machine["status"]
    error = status.get("last_error")
    # A machine that died on its way is asleep, and is then to be so.
    if phase == machine["desired_state"] and (phase == wanted or not error):
        return 0
    why = " ".join(f"{status['reason']}: {error}".split()) if error else status["reason"]
    print(f"dormice: {machine['machine_id']} is {phase}, not {wanted}: {why}", file=sys.stderr)
    return 1


def _settled(connection: Connection, machine: Record) -> Record:
    """The machine once it is what it is to be, or has failed. A line on stderr says where it is meanwhile."""
    path = routes.machine(machine["machine_id"])
    told = sys.stderr.isatty()
    while machine["phase"] != machine["desired_state"] and machine["phase"] != "failed":
        pending = machine["phase"] == "placement_pending"
        what = "no node is connected to run it, waiting" if pending else machine["phase"].replace("_", " ")
        progress(f"{machine['machine_id']}: {what} …")
        if pending and not told:
            print(f"dormice: {machine['machine_id']}: {what}", file=sys.stderr, flush=True)
            told = True
        machine = connection.call("GET", path, query={"wait_ms": POLL_MS}).json()
    progress("")
    return machine


def progress(text: str) -> None:
    """Replace the line of progress on stderr. Nothing happens if that is no terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _retrieve(arguments: argparse.Namespace) -> int:
    reply = connect(arguments).call("GET", routes.machine(arguments.machine_id))
    _show(reply.json(), as_json=arguments.json)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    show_pages(pages(connect(arguments), routes.MACHINES, arguments), COLUMNS, as_json=arguments.json)
    return 0


def _watch(arguments: argparse.Namespace) -> int:
    path = f"{routes.machine(arguments.machine_id)}/status/stream"
    for event in events_of_one_connection(connect(arguments), path, query={}, last_event_id=arguments.last_event_id):
        if event.name == "status":
            machine = json.loads(event.data)
            line = f"{machine['phase']:18} {machine['status']['reason']}"
            print(json.dumps(machine) if arguments.json else line, flush=True)
    return 0
