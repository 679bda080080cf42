# Generated from _async/streams.py by scripts/generate_sync_client.py; change that and run it again.
"""Streams of events: one that ends with its connection, and one that goes on over as many as it takes."""

from __future__ import annotations

import json
import random
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from dormice.client import retries, routes
from dormice.client._sync.connection import Connection
from dormice.client._sync.pause import sleep
from dormice.client.errors import APIConnectionError, APIResponseError, APIStatusError
from dormice.client.sse import Decoder, ServerSentEvent
from dormice.client.statuses import FINISHED

_Event = TypeVar("_Event")

MOST_RECONNECTS = 8
"""Failed connections in a row, without one event between them, after which an execution's stream gives up."""


class EventStream(Generic[_Event]):
    """Iterate over it; close it (or use it in a `with` block) if you stop before its end."""

    def __init__(self, events: Generator[_Event, None, None]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[_Event]:
        return self

    def __next__(self) -> _Event:
        return self._events.__next__()

    def close(self) -> None:
        """End the connection. The execution or machine that is watched is not touched."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def events_of_one_connection(
    connection: Connection, path: str, *, query: dict[str, str | int | bool | None], last_event_id: str | None
) -> Generator[ServerSentEvent, None, None]:
    headers = {"accept": "text/event-stream"}
    if last_event_id:
        headers["last-event-id"] = last_event_id
    response = connection.open(path, query=query, headers=headers)
    try:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise APIResponseError("the server's answer is no event stream: is the base URL right?")
        decoder = Decoder()
        for chunk in response.chunks():
            yield from decoder.feed(chunk)
    finally:
        response.close()


def events_of_execution(
    connection: Connection, machine_id: str, execution_id: str, *, after: int = 0
) -> Generator[ServerSentEvent, None, None]:
    """The log of an execution from behind entry `after` to its last, each entry once and in order.

    A connection that breaks, or that the server ends early, is made again from the last entry seen. Raises what
    `Connection.call` raises at the first connection, and later once `MOST_RECONNECTS` have failed in a row.
    """
    path = routes.execution(machine_id, execution_id)
    last_id = str(after) if after else None
    failures, connected, ended = 0, False, False
    while True:
        events = events_of_one_connection(
            connection, f"{path}/events", query={"encoding": "base64"}, last_event_id=last_id
        )
        try:
            for event in events:
                if event.name == "error":  # the server's last words: asking for the record tells what is wrong
                    break
                failures, connected, last_id = 0, True, event.id or last_id
                yield event
                if _is_last(event):
                    return
            if ended:
                return
            connected = True
            ended = (connection.call("GET", path)).json()["status"] in FINISHED
        except (APIConnectionError, APIStatusError) as error:
            if not connected or not _passes(error) or failures >= MOST_RECONNECTS:
                raise
        finally:
            events.close()
        if not ended:
            failures += 1
            if failures > 1:  # at once after progress: most breaks are short
                sleep(retries.delay(failures - 2, {}, jitter=random.random()))  # noqa: S311 - not a secret


def _is_last(event: ServerSentEvent) -> bool:
    return event.name == "lifecycle" and json.loads(event.data).get("status") in FINISHED


def _passes(error: APIConnectionError | APIStatusError) -> bool:
    return isinstance(error, APIConnectionError) or retries.may_retry(error.status_code, error.headers)
