"""`dormice events`: publish, read and follow events. `dormice runs events` is the same for the topic of a run."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Generator
from contextlib import closing

from dormice.cli.commands import Parser
from dormice.cli.printing import Columns, Record, show, show_pages
from dormice.cli.project import command, connect, document, post, word
from dormice.client import retries, routes
from dormice.client._sync.connection import Connection
from dormice.client._sync.pause import sleep
from dormice.client._sync.streams import MOST_RECONNECTS, events_of_one_connection
from dormice.client.errors import APIConnectionError

COLUMNS: Columns = {
    "sequence": lambda event: f"{event['sequence_id']:8}",
    "at": lambda event: f"{event['created_at']:32}",
    "type": lambda event: f"{event['event_type'] or '-':16}",
    "data": lambda event: json.dumps(event["data"]),
}


def declare(parser: Parser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    publish = command(commands, "publish", "Publish an event; runs that wait for it go on", _publish)
    publish.add_argument("topic", type=word, metavar="TOPIC")
    publish.add_argument(
        "--data", type=document, default="null", metavar="JSON", help="what it says; - reads it from stdin"
    )
    publish.add_argument("--type", metavar="TYPE", help="what kind of event it is")
    listing = command(commands, "list", "Show the events of a topic", _list)
    listing.add_argument("topic", type=word, metavar="TOPIC")
    event_options(listing, until="Ctrl-C")


def event_options(parser: argparse.ArgumentParser, *, until: str) -> None:
    """The options of commands that show events."""
    parser.add_argument("--follow", action="store_true", help=f"go on until {until}")
    parser.add_argument("--after", type=int, default=0, metavar="SEQUENCE", help="those behind this one")


def show_events(
    server: Connection,
    topic: str,
    arguments: argparse.Namespace,
    ended: Callable[[], bool] | None = None,
    **stream: str,
) -> None:
    """The events of a topic; with `--follow` those of a stream, which ends once `ended` says that there will be no more."""
    if not arguments.follow:
        show_pages(_stored(server, topic, arguments.after), COLUMNS, as_json=arguments.json)
        return
    with closing(_following(server, topic, stream or {"topic": topic}, arguments.after, ended)) as pages:
        show_pages(pages, COLUMNS, as_json=arguments.json)


def _stored(server: Connection, topic: str, after: int) -> Generator[list[Record], None, None]:
    """The events that there are, a page at a time."""
    while True:
        page = server.call("GET", routes.EVENTS, query={"topic": topic, "last_sequence_id": after}).json()
        yield page["events"]
        if not page["has_more"]:
            return
        after = page["next_sequence_id"]


def _following(
    server: Connection, topic: str, stream: dict[str, str], after: int, ended: Callable[[], bool] | None
) -> Generator[list[Record], None, None]:
    """Each event once, also over connections that break. Raises APIConnectionError once many have failed in a row."""
    failures = 0
    while True:
        query: dict[str, str | int | bool | None] = {**stream, "last_sequence_id": after}
        try:
            with closing(
                events_of_one_connection(server, f"{routes.EVENTS}/stream", query=query, last_event_id=None)
            ) as events:
                for event in events:
                    record = json.loads(event.data)
                    failures, after = 0, record["sequence_id"]
                    yield [record]
            over = ended is not None and ended()
        except APIConnectionError:
            if failures >= MOST_RECONNECTS:
                raise
            over = False
        if over:
            yield from _stored(server, topic, after)
            return
        failures += 1
        if failures > 1:  # at once after progress: most breaks are short
            sleep(retries.delay(failures - 2, {}, jitter=random.random()))  # noqa: S311 - not a secret


def _publish(arguments: argparse.Namespace) -> int:
    event = f'[{{"event_type": {json.dumps(arguments.type)}, "data": {arguments.data}}}]'
    reply = post(connect(arguments), f"{routes.EVENTS}/publish", {"topic": arguments.topic}, events=event)
    show(reply.json(), as_json=arguments.json)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    show_events(connect(arguments), arguments.topic, arguments)
    return 0
