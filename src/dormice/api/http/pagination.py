"""Cursors: opaque to clients, checked by us.

A list's cursor names the ordinal below which the next page starts; an event page's cursor is the last sequence seen.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from dormice.api.http.call import Call
from dormice.api.http.errors import Fault, InvalidRequest

_LIST_CURSOR = re.compile(r"b([0-9]{1,18})", re.ASCII)
_SEQUENCE = re.compile(r"[0-9]{1,18}", re.ASCII)
_SLICE = 32
"""Items read and rendered at once: about half a millisecond's work."""


class Numbered(Protocol):
    """Something that a list orders by its number."""

    @property
    def number(self) -> int:
        """The ordinal."""
        ...


N = TypeVar("N", bound=Numbered)
R = TypeVar("R")


def page_limit(call: Call, default: int) -> int:
    """Return how many items a page may have: absent or 0 is the default, above page_max is page_max."""
    return min(call.integer("limit", default=0) or default, call.limits.page_max)


def list_cursor(call: Call) -> int | None:
    """Return the ordinal below which the page starts, None for the first page. Raises Invalid."""
    text = call.query.get("cursor")
    if not text:
        return None
    match = _LIST_CURSOR.fullmatch(text)
    if match is None:
        raise _bad_cursor("query.cursor")
    return int(match[1])


async def list_page(
    call: Call,
    default: int,
    read: Callable[[int | None, int], Awaitable[Sequence[N]]],
    record: Callable[[N], R],
) -> tuple[list[R], str | None]:
    """Return the records of the page that the call asks for, and the next page's cursor (None: it is the last page).

    `read` returns at most so many items below a number, newest first. It is asked for a slice at a time, with a pause for others
    after each. Raises Invalid.
    """
    limit, before = page_limit(call, default), list_cursor(call)
    records: list[R] = []
    while True:
        room = limit - len(records)
        wanted = min(_SLICE, room + 1)  # one more than the page has shows that there is another
        found = await read(before, wanted)
        records += [record(item) for item in found[:room]]
        if found[:room]:
            before = found[:room][-1].number
        if len(found) > room:
            return records, f"b{before}"
        if len(found) < wanted:
            return records, None
        await call.pause()


def sequence_cursor(text: str | None, location: str) -> int:
    """Return the sequence after which to go on, 0 for the beginning. Raises Invalid."""
    if not text:
        return 0
    if not _SEQUENCE.fullmatch(text):
        raise _bad_cursor(location)
    return int(text)


def _bad_cursor(location: str) -> InvalidRequest:
    message = "the cursor is none of ours: send back the next_cursor (or the id of an event) as it was received"
    return InvalidRequest([Fault(message, location)])
