"""Cursors: opaque to clients, checked by us.

A list's cursor names the ordinal below which the next page starts; an event page's cursor is the last sequence seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

from dormice.api.http.call import Call
from dormice.api.http.errors import Fault, InvalidRequest

_LIST_CURSOR = re.compile(r"b([0-9]{1,18})", re.ASCII)
_SEQUENCE = re.compile(r"[0-9]{1,18}", re.ASCII)


class Numbered(Protocol):
    """Something that a list orders by its number."""

    @property
    def number(self) -> int:
        """The ordinal."""
        ...


N = TypeVar("N", bound=Numbered)


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


def cut_page(found: Sequence[N], limit: int) -> tuple[Sequence[N], str | None]:
    """Split what was read, one more than `limit`, into the page and the next page's cursor (None: the last page)."""
    if len(found) <= limit:
        return found, None
    return found[:limit], f"b{found[limit - 1].number}"


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
