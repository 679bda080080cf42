"""`dormice schedules`: runs at set times."""

from __future__ import annotations

import argparse

from dormice.cli.commands import Parser
from dormice.cli.printing import Columns, list_options, pages, show, show_pages
from dormice.cli.project import command, connect, post, word
from dormice.client import routes

UPCOMING = 3
KEY = "default"

COLUMNS: Columns = {
    "schedule id": lambda schedule: schedule["id"],
    "workflow": lambda schedule: schedule["workflow_id"],
    "key": lambda schedule: schedule["key"],
    "cron": lambda schedule: schedule["cron"],
    "timezone": lambda schedule: schedule["timezone"],
    "status": lambda schedule: schedule["status"],
    "next": lambda schedule: schedule["next_run_at"],
    "last run": lambda schedule: schedule["last_run_at"],
}
TICKS: Columns = {
    "at": lambda tick: tick["scheduled_at"],
    "outcome": lambda tick: tick["outcome"],
    "run id": lambda tick: tick["execution_id"],
    "blocked by": lambda tick: tick["blocked_by"],
}


def declare(parser: Parser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    create = command(commands, "create", "Make a schedule, or change the one with this workflow and key", _create)
    create.add_argument("workflow", type=word, metavar="WORKFLOW")
    create.add_argument("cron", metavar="CRON", help="minute, hour, day, month, weekday: '0 8 * * mon-fri'")
    create.add_argument("--timezone", default="UTC", metavar="NAME", help="such as Europe/Vienna (UTC)")
    create.add_argument("--key", default=KEY, type=word, help=f"tells a workflow's schedules apart ({KEY})")
    create.add_argument(
        "--catch-up", choices=["none", "one", "all"], help="what becomes of times that were missed (none)"
    )
    create.add_argument(
        "--overlap", action=argparse.BooleanOptionalAction, help="run also while an earlier run goes on (no)"
    )
    listing = command(commands, "list", "List the schedules", _list)
    listing.add_argument("--workflow", type=word, metavar="ID", help="those of this workflow")
    listing.add_argument("--key", type=word, help="those with this key")
    list_options(listing)
    retrieve = command(commands, "retrieve", "Show a schedule and its next times", _retrieve, aliases=["get"])
    ticks = command(commands, "ticks", "Say what became of the last times of a schedule, the latest first", _ticks)
    ticks.add_argument("--limit", type=int, metavar="N", help="at most so many")
    pause = command(commands, "pause", "Have a schedule start nothing until it is resumed", _pause)
    resume = command(commands, "resume", "Have a paused schedule go on; what it missed is not caught up", _resume)
    delete = command(commands, "delete", "Delete a schedule; its runs stay", _delete)
    for each in (retrieve, ticks, pause, resume, delete):
        each.add_argument("schedule_id", type=word, metavar="SCHEDULE-ID")


def _create(arguments: argparse.Namespace) -> int:
    server = connect(arguments)
    body = {
        "workflow_id": arguments.workflow,
        "cron": arguments.cron,
        "timezone": arguments.timezone,
        "key": arguments.key,
        "catch_up": arguments.catch_up,
        "overlap": arguments.overlap,
    }
    made = post(server, routes.SCHEDULES, body).json()
    arguments.schedule_id = made["schedule_id"]
    return _retrieve(arguments)


def _list(arguments: argparse.Namespace) -> int:
    found = pages(
        connect(arguments),
        routes.SCHEDULES,
        arguments,
        name="schedules",
        workflow_id=arguments.workflow,
        key=arguments.key,
    )
    show_pages(found, COLUMNS, as_json=arguments.json)
    return 0


def _retrieve(arguments: argparse.Namespace) -> int:
    reply = connect(arguments).call("GET", routes.schedule(arguments.schedule_id), query={"upcoming": UPCOMING})
    show(reply.json(), as_json=arguments.json)
    return 0


def _ticks(arguments: argparse.Namespace) -> int:
    path = f"{routes.schedule(arguments.schedule_id)}/ticks"
    found = connect(arguments).call("GET", path, query={"limit": arguments.limit}).json()["ticks"]
    show_pages([found], TICKS, as_json=arguments.json)
    return 0


def _pause(arguments: argparse.Namespace) -> int:
    return _turn(arguments, "pause")


def _resume(arguments: argparse.Namespace) -> int:
    return _turn(arguments, "resume")


def _turn(arguments: argparse.Namespace, verb: str) -> int:
    reply = connect(arguments).call("POST", f"{routes.schedule(arguments.schedule_id)}/{verb}")
    show(reply.json(), as_json=arguments.json)
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    connect(arguments).call("DELETE", routes.schedule(arguments.schedule_id))
    return 0
