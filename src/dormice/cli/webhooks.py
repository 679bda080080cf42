"""`dormice webhooks`: URLs that are told of what happens."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from dormice.cli.commands import Parser
from dormice.cli.connect import connect
from dormice.cli.printing import Columns, Record, list_options, pages, printable, show, show_pages
from dormice.cli.subcommands import show_answer, subcommand
from dormice.client import routes

COLUMNS: Columns = {
    "webhook id": lambda webhook: webhook["webhook_id"],
    "url": lambda webhook: webhook["url"],
    "events": lambda webhook: ",".join(webhook["events"]),
    "enabled": lambda webhook: "yes" if webhook["enabled"] else "no",
    "failing since": lambda webhook: webhook.get("failing_since"),
}
DELIVERY_COLUMNS: Columns = {
    "event id": lambda delivery: delivery["event_id"],
    "type": lambda delivery: delivery["type"],
    "status": lambda delivery: delivery["status"],
    "attempts": lambda delivery: delivery["attempts"],
    "answered": lambda delivery: delivery.get("last_status_code"),
    "created": lambda delivery: delivery["created_at"],
    "error": lambda delivery: delivery.get("last_error"),
}
_Run = Callable[[argparse.Namespace], int]


def declare(parser: Parser) -> None:
    parser.epilog = (
        "For example, `dormice webhooks create https://example.com/hook --event execution.finished` makes one, and "
        "`dormice webhooks test WEBHOOK-ID --wait-ms 10000` shows whether it works."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    create = subcommand(commands, "create", "Make a webhook; its secret is shown this once", _create)
    create.add_argument("url", metavar="URL", help="where events are sent to")
    _events(create, "all")
    create.add_argument("--idempotency-key", metavar="KEY", help="the same key again gives the same webhook")
    subcommand(commands, "list", "List the webhooks, without their secrets", _list)
    _of_one(commands, "get", "Show a webhook", _get)
    update = _of_one(commands, "update", "Change a webhook; what is pending is tried at once", _update)
    update.add_argument("--url", help="where events are sent to")
    _events(update, "as before")
    switch = update.add_mutually_exclusive_group()
    switch.add_argument("--enable", action="store_true", help="send to it (again)")
    switch.add_argument("--disable", action="store_true", help="send nothing more to it")
    _of_one(commands, "delete", "Delete a webhook and what is pending for it", _delete)
    _of_one(commands, "rotate-secret", "Give a webhook another secret, shown this once", _rotate)
    deliveries = _of_one(commands, "deliveries", "List what was sent to a webhook, or is to be sent", _deliveries)
    list_options(deliveries)
    _wait(_of_one(commands, "test", "Send a test event to a webhook", _test))
    redeliver = _of_one(commands, "redeliver", "Send an event again, whatever became of it", _redeliver)
    redeliver.add_argument("event_id", metavar="EVENT-ID")
    _wait(redeliver)


def _of_one(commands: argparse._SubParsersAction[Parser], name: str, summary: str, run: _Run) -> Parser:
    command = subcommand(commands, name, summary, run)
    command.add_argument("webhook_id", metavar="WEBHOOK-ID")
    return command


def _events(command: Parser, default: str) -> None:
    what = f"an event, such as execution.finished or machine.failed; may be given several times (default: {default})"
    command.add_argument("--event", action="append", dest="events", metavar="EVENT", help=what)


def _wait(command: Parser) -> None:
    command.add_argument(
        "--wait-ms", type=int, metavar="MS", help="wait so long for the attempt (exit 1 if it is not delivered)"
    )


def _create(arguments: argparse.Namespace) -> int:
    body = {"url": arguments.url, "events": arguments.events}
    return show_answer(arguments, "POST", routes.WEBHOOKS, body, idempotency_key=arguments.idempotency_key)


def _list(arguments: argparse.Namespace) -> int:
    show_pages([connect(arguments).call("GET", routes.WEBHOOKS).json()["items"]], COLUMNS, as_json=arguments.json)
    return 0


def _get(arguments: argparse.Namespace) -> int:
    return show_answer(arguments, "GET", routes.webhook(arguments.webhook_id))


def _update(arguments: argparse.Namespace) -> int:
    enabled = True if arguments.enable else False if arguments.disable else None
    body = {"url": arguments.url, "events": arguments.events, "enabled": enabled}
    return show_answer(arguments, "PATCH", routes.webhook(arguments.webhook_id), body)


def _delete(arguments: argparse.Namespace) -> int:
    return show_answer(arguments, "DELETE", routes.webhook(arguments.webhook_id))


def _rotate(arguments: argparse.Namespace) -> int:
    return show_answer(arguments, "POST", f"{routes.webhook(arguments.webhook_id)}/rotate-secret")


def _deliveries(arguments: argparse.Namespace) -> int:
    path = f"{routes.webhook(arguments.webhook_id)}/deliveries"
    show_pages(pages(connect(arguments), path, arguments), DELIVERY_COLUMNS, as_json=arguments.json)
    return 0


def _test(arguments: argparse.Namespace) -> int:
    return _deliver(arguments, f"{routes.webhook(arguments.webhook_id)}/test")


def _redeliver(arguments: argparse.Namespace) -> int:
    return _deliver(arguments, f"{routes.delivery(arguments.webhook_id, arguments.event_id)}/redeliver")


def _deliver(arguments: argparse.Namespace, path: str) -> int:
    reply = connect(arguments).call("POST", path, query={"wait_ms": arguments.wait_ms})
    delivery: Record = reply.json()
    show(delivery, as_json=arguments.json)
    if not arguments.wait_ms or delivery["status"] == "delivered":
        return 0
    print(f"dormice: not delivered: {printable(delivery.get('last_error') or delivery['status'])}", file=sys.stderr)
    return 1
