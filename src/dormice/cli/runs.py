"""`dormice runs`: workflows that run, have run, or are to run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from dormice.cli.commands import Parser
from dormice.cli.events import event_options, show_events
from dormice.cli.printing import Columns, Record, answers, list_options, pages, show, show_pages
from dormice.cli.project import command, connect, document, post, word
from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client.statuses import FINISHED_RUN

POLL_MS = 30_000

LIST: Columns = {
    "run id": lambda run: run["id"],
    "workflow": lambda run: run["workflow_id"],
    "status": lambda run: run["status"],
    "created": lambda run: run["created_at"],
    "ended": lambda run: run["completed_at"],
    "failed attempts": lambda run: run["retry_count"] or None,
    "step": lambda run: run["step_key"],
    "error": lambda run: run["error"],
}
STEPS: Columns = {
    "completed": lambda step: step["completed_at"],
    "step": lambda step: step["step_key"],
    "outcome": lambda step: "done" if step["success"] else "failed",
    "run id": lambda step: step["source_execution_id"],
    "output": lambda step: json.dumps(step["outputs"] if step["success"] else step["error"]),
}
COMMANDS: Columns = {
    "execution id": lambda command: command["execution_id"],
    "machine": lambda command: command["machine_id"],
    "status": lambda command: command["status"],
    "created": lambda command: command["created_at"],
    "ended": lambda command: command["completed_at"],
    "step": lambda command: command["step_key"],
}
FILTERS = {
    "workflow": ("workflow_id", "ID", "those of this workflow"),
    "queue": ("queue", "NAME", "those of this queue"),
    "session": ("session_id", "ID", "those of this session"),
    "user": ("user_id", "ID", "those of this user"),
    "batch": ("batch_id", "ID", "those of this batch"),
    "parent": ("parent", "RUN-ID", "those that this run has asked for"),
    "since": ("since", "TIME", "made at this moment or later: 2026-06-01T08:00:00Z"),
    "until": ("until", "TIME", "made before this moment"),
}
"""By the names of the options: the parameter of the query, the metavar, the help."""


def declare(parser: Parser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _declare_start(command(commands, "start", "Have a workflow run", _start))
    listing = command(commands, "list", "List runs, the newest first", _list)
    listing.add_argument("--status", metavar="STATUS[,STATUS]", help="such as queued,running,waiting or failed")
    for name, (_, metavar, summary) in FILTERS.items():
        listing.add_argument(f"--{name}", type=word, metavar=metavar, help=summary)
    listing.add_argument("--roots", action="store_true", help="only those that no run has asked for")
    list_options(listing)
    retrieve = command(commands, "retrieve", "Show a run", _retrieve, aliases=["get"])
    cancel = command(commands, "cancel", "Have a run and all below it end", _cancel)
    for each in (retrieve, cancel):
        each.add_argument("--wait", action="store_true", help="return when it has ended")
    rerun = command(commands, "rerun", "Run again what a run was given, as a new run", _rerun)
    rerun.add_argument("--from-step", type=word, metavar="KEY", help="take over what was done before this step")
    rerun.add_argument("--deployment", type=word, metavar="ID", help="whose workers run it (default: the same)")
    _write_options(rerun)
    resume = command(commands, "resume", "Give a suspended run the answer that it waits for", _resume)
    children = command(
        commands, "children", "List the runs that a run has asked for, and its commands on machines", _children
    )
    list_options(children)
    steps = command(commands, "steps", "Show what a run has done, in order", _steps)
    why = command(commands, "why-queued", "Say what a queued run waits for, or which worker has it", _why_queued)
    events = command(commands, "events", "Show the events of a run and of all in its tree", _events)
    event_options(events, until="the run at the root has ended")
    for each in (retrieve, cancel, rerun, resume, children, steps, why, events):
        each.add_argument("run_id", type=word, metavar="RUN-ID")
    resume.add_argument("step", type=word, metavar="STEP", help="the key of the step that waits")
    resume.add_argument(
        "--data", type=document, default="null", metavar="JSON", help="the answer; - reads it from stdin"
    )


def _declare_start(start: Parser) -> None:
    start.add_argument("workflow", type=word, metavar="WORKFLOW")
    start.add_argument(
        "--payload", type=document, default="null", metavar="JSON", help="what it is given; - reads it from stdin"
    )
    start.add_argument("--deployment", type=word, metavar="ID", help="whose workers run it (default: the latest)")
    start.add_argument("--queue", type=word, metavar="NAME", help="where it waits for a worker")
    start.add_argument("--concurrency-key", type=word, metavar="KEY", help="the queue's limit is for each key")
    start.add_argument("--priority", type=int, metavar="N", help="greater goes first in its queue (0)")
    start.add_argument("--session", type=word, metavar="ID", help="what it belongs to (default: a new one)")
    start.add_argument("--user", type=word, metavar="ID", help="for whom it is run")
    start.add_argument("--run-timeout", type=int, metavar="SECONDS", help="how long an attempt may take")
    _write_options(start)


def _write_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="return when it has ended (exit 1 unless it has completed)")
    parser.add_argument("--idempotency-key", type=word, metavar="KEY")


def _start(arguments: argparse.Namespace) -> int:
    server = connect(arguments)
    body = {
        "deployment_id": arguments.deployment,
        "queue_name": arguments.queue,
        "concurrency_key": arguments.concurrency_key,
        "priority": arguments.priority,
        "session_id": arguments.session,
        "user_id": arguments.user,
        "run_timeout_seconds": arguments.run_timeout,
    }
    path = f"{routes.workflow(arguments.workflow)}/run"
    reply = post(server, path, body, idempotency_key=arguments.idempotency_key, payload=arguments.payload)
    return _made(server, arguments, reply.json())


def _rerun(arguments: argparse.Namespace) -> int:
    server = connect(arguments)
    body = {"from_step": arguments.from_step, "deployment_id": arguments.deployment}
    reply = post(server, f"{routes.run(arguments.run_id)}/rerun", body, idempotency_key=arguments.idempotency_key)
    return _made(server, arguments, reply.json())


def _made(server: Connection, arguments: argparse.Namespace, made: Record) -> int:
    """Show a new run, or with `--wait` the run at its end."""
    if not arguments.wait:
        show(made, as_json=arguments.json)
        return 0
    run = _ended(server, made["execution_id"])
    show(run, as_json=arguments.json)
    if run["status"] == "completed":
        return 0
    why = " ".join((run["error"] or f"by {run['cancelled_by']}").split())
    print(f"dormice: {run['id']} has {_PAST[run['status']]}: {why}", file=sys.stderr)
    return 1


_PAST = {"failed": "failed", "cancelled": "been cancelled"}


def _ended(server: Connection, run_id: str) -> Record:
    """The run once it has ended. If no worker is there to run it, a line on stderr says so."""
    run = _run(server, run_id)
    if run["status"] == "queued":
        why = server.call("GET", f"{routes.run(run_id)}/queue").json()
        if why["reason"] == "no_worker":
            text = f"{run_id} waits for a worker of deployment {run['deployment_id']}: dormice worker runs one"
            print(f"dormice: {text}", file=sys.stderr, flush=True)
    while run["status"] not in FINISHED_RUN:
        run = server.call("GET", routes.run(run_id), query={"wait_ms": POLL_MS}).json()
    return run


def _list(arguments: argparse.Namespace) -> int:
    given = {parameter: getattr(arguments, name) for name, (parameter, _, _) in FILTERS.items()}
    found = pages(
        connect(arguments),
        routes.RUNS,
        arguments,
        name="executions",
        status=arguments.status,
        roots=arguments.roots or None,
        **given,
    )
    show_pages(found, LIST, as_json=arguments.json)
    return 0


def _retrieve(arguments: argparse.Namespace) -> int:
    server = connect(arguments)
    run = _ended(server, arguments.run_id) if arguments.wait else _run(server, arguments.run_id)
    show(run, as_json=arguments.json)
    return 0


def _run(server: Connection, run_id: str) -> Record:
    run: Record = server.call("GET", routes.run(run_id)).json()
    return run


def _cancel(arguments: argparse.Namespace) -> int:
    server = connect(arguments)
    answer: Record = server.call("POST", f"{routes.run(arguments.run_id)}/cancel").json()
    show(_ended(server, arguments.run_id) if arguments.wait else answer, as_json=arguments.json)
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    path = f"{routes.run(arguments.run_id)}/resume"
    reply = post(connect(arguments), path, {"step_key": arguments.step}, data=arguments.data)
    show(reply.json(), as_json=arguments.json)
    return 0


def _children(arguments: argparse.Namespace) -> int:
    path = f"{routes.run(arguments.run_id)}/children"
    commands: list[Record] = []

    def runs() -> Iterator[list[Record]]:
        for answer in answers(connect(arguments), path, arguments, name="executions"):
            commands.extend(answer["commands"])  # all are in the first one
            yield answer["executions"]

    show_pages(runs(), LIST, as_json=arguments.json)
    if commands:
        show_pages([commands], COMMANDS, as_json=arguments.json)
    return 0


def _steps(arguments: argparse.Namespace) -> int:
    found = connect(arguments).call("GET", f"{routes.run(arguments.run_id)}/steps").json()["steps"]
    show_pages([found], STEPS, as_json=arguments.json)
    return 0


def _why_queued(arguments: argparse.Namespace) -> int:
    show(connect(arguments).call("GET", f"{routes.run(arguments.run_id)}/queue").json(), as_json=arguments.json)
    return 0


def _events(arguments: argparse.Namespace) -> int:
    server = connect(arguments)
    run = _run(server, arguments.run_id)
    if run["root_execution_id"]:
        run = _run(server, run["root_execution_id"])
    workflow_id, run_id = run["workflow_id"], run["id"]
    arguments.follow = arguments.follow and run["status"] not in FINISHED_RUN
    show_events(
        server,
        f"workflow/{workflow_id}/{run_id}",
        arguments,
        lambda: _run(server, run_id)["status"] in FINISHED_RUN,
        workflow_id=workflow_id,
        workflow_run_id=run_id,
    )
    return 0
