"""`dormice machines executions`: the records of commands. `dormice exec` is the way to run one and see it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from contextlib import closing
from typing import Any

from dormice.cli.commands import Parser
from dormice.cli.connect import connect
from dormice.cli.printing import Columns, Record, list_options, pages, show, show_pages
from dormice.cli.subcommands import show_answer, subcommand
from dormice.client import routes
from dormice.client._sync.streams import events_of_execution


def declare(parser: Parser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    create = subcommand(commands, "create", "Start a command and return its record at once", _create, of_machine=True)
    create.add_argument("--command", type=_argv, required=True, metavar="JSON", help="""argv, such as '["ls", "-l"]'""")
    create.add_argument("--cwd", metavar="DIR", help="working directory (default /root)")
    create.add_argument("--env", type=_environment, metavar="JSON", help="""variables, such as '{"A": "1"}'""")
    create.add_argument("--stdin", metavar="TEXT", help="text for the process to read")
    create.add_argument("--timeout-ms", type=int, metavar="N", help="kill it after so many milliseconds")
    create.add_argument("--start-timeout-ms", type=int, metavar="N", help="give up if it has not started by then")
    create.add_argument("--artifacts", action="append", metavar="PATTERN", help="keep these files: out/*.json, logs/**")
    create.add_argument("--wait-ms", type=int, metavar="N", help="answer when it has ended, or after so long")
    create.add_argument("--idempotency-key", metavar="KEY")
    listing = subcommand(commands, "list", "List a machine's executions, newest first", _list, of_machine=True)
    list_options(listing)
    retrieve = subcommand(commands, "retrieve", "Show an execution", _retrieve, aliases=["get"], of_machine=True)
    retrieve.add_argument("--wait-ms", type=int, metavar="N", help="answer when it has ended, or after so long")
    delete = subcommand(
        commands, "delete", "Cancel an execution; its record stays", _delete, aliases=["cancel"], of_machine=True
    )
    events = subcommand(commands, "events", "Show the log of an execution", _events, of_machine=True)
    list_options(events)
    events.add_argument("--follow", action="store_true", help="go on until it ends")
    output = subcommand(
        commands, "output", "Write what an execution wrote, each stream to its own", _output, of_machine=True
    )
    logs = subcommand(
        commands,
        "logs",
        "Say whether the log of an execution is complete, or make a token for it",
        _logs,
        of_machine=True,
    )
    logs.add_argument("--token", action="store_true", help="make a token that reads this log for 15 minutes")
    for command in (retrieve, delete, events, output, logs):
        command.add_argument("--execution-id", metavar="ID", required=True)


def _argv(text: str) -> list[str]:
    value = _json(text)
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise argparse.ArgumentTypeError("""must be a JSON array of strings, such as '["ls", "-l"]'""")
    return value


def _environment(text: str) -> dict[str, str]:
    value = _json(text)
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise argparse.ArgumentTypeError("""must be a JSON object of strings, such as '{"A": "1"}'""")
    return value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _end(execution: Record) -> str | None:
    if execution.get("signal") is not None:
        return f"signal {execution['signal']}"
    if execution.get("exit_code") is not None:
        return f"exit {execution['exit_code']}"
    return execution.get("error_code")


LIST: Columns = {
    "execution id": lambda execution: execution["execution_id"],
    "status": lambda execution: execution["status"],
    "end": _end,
    "created": lambda execution: execution["created_at"],
    "command": lambda execution: shlex.join(execution["command"] or []),
}
EVENTS: Columns = {
    "sequence": lambda event: f"{event['sequence']:8}",
    "at": lambda event: f"{event['at']:27}",
    "type": lambda event: f"{event['type']:9}",
    "what": lambda event: event["status"] if event["type"] == "lifecycle" else repr(event.get("chunk") or ""),
}


def _create(arguments: argparse.Namespace) -> int:
    fields = ("command", "cwd", "env", "stdin", "timeout_ms", "start_timeout_ms", "artifacts")
    return show_answer(
        arguments,
        "POST",
        routes.executions(arguments.machine_id),
        {name: getattr(arguments, name) for name in fields},
        query={"wait_ms": arguments.wait_ms},
        idempotency_key=arguments.idempotency_key,
    )


def _list(arguments: argparse.Namespace) -> int:
    path = routes.executions(arguments.machine_id)
    show_pages(pages(connect(arguments), path, arguments), LIST, as_json=arguments.json)
    return 0


def _retrieve(arguments: argparse.Namespace) -> int:
    path = routes.execution(arguments.machine_id, arguments.execution_id)
    return show_answer(arguments, "GET", path, query={"wait_ms": arguments.wait_ms})


def _delete(arguments: argparse.Namespace) -> int:
    return show_answer(arguments, "DELETE", routes.execution(arguments.machine_id, arguments.execution_id))


def _events(arguments: argparse.Namespace) -> int:
    connection = connect(arguments)
    if not arguments.follow:
        path = f"{routes.execution(arguments.machine_id, arguments.execution_id)}/events"
        show_pages(pages(connection, path, arguments), EVENTS, as_json=arguments.json)
        return 0
    after = int(arguments.cursor or 0)
    with closing(events_of_execution(connection, arguments.machine_id, arguments.execution_id, after=after)) as events:
        show_pages(([_with_text(json.loads(event.data))] for event in events), EVENTS, as_json=arguments.json)
    return 0


def _with_text(event: dict[str, Any]) -> dict[str, Any]:
    """The event with its output as text beside the exact bytes."""
    if "chunk_base64" in event:
        from base64 import b64decode  # noqa: PLC0415 - loaded when needed

        event["chunk"] = b64decode(event["chunk_base64"]).decode(errors="replace")
    return event


def _output(arguments: argparse.Namespace) -> int:
    connection = connect(arguments)
    path = f"{routes.execution(arguments.machine_id, arguments.execution_id)}/output"
    if arguments.json:
        show(connection.call("GET", path).json(), as_json=True)
        return 0
    for descriptor, stream in ((1, "stdout"), (2, "stderr")):
        reply = connection.call("GET", f"{path}/{stream}", headers={"accept": "application/octet-stream"})
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(reply.content)
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    path = routes.logs(arguments.machine_id, arguments.execution_id)
    return show_answer(arguments, "POST", f"{path}/token") if arguments.token else show_answer(arguments, "GET", path)
