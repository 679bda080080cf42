"""Query parameters that several lists of this surface have, and checks of fields that several bodies have."""

from __future__ import annotations

import re

from dormice.api.http.call import Call
from dormice.api.http.operation import Parameter
from dormice.api.workflows.door import bad
from dormice.domain.moments import micros

MOST_OFFSET = 100_000
"""How many items a list with an offset may leave out: it reads them all."""
_TRACE = re.compile(r"[0-9a-f]{32}")

_TEXT = {"type": "string"}
LIMIT = Parameter("limit", "query", {"type": "integer", "minimum": 0}, "Items at most; 0 is the default.")
ENTRIES = Parameter("limit", "query", {"type": "integer", "minimum": 1}, "Items at most.")
OFFSET = Parameter(
    "offset", "query", {"type": "integer", "minimum": 0, "maximum": MOST_OFFSET}, "Items that are left out."
)
CURSOR = Parameter("cursor", "query", _TEXT, "`next_cursor` of the page before.")
START = Parameter("start_time", "query", _TEXT, "From this moment on.")
END = Parameter("end_time", "query", _TEXT, "Before this moment.")


def text(call: Call, name: str) -> str | None:
    """Return a query parameter; an empty one is none."""
    return call.query.get(name) or None


def moment(call: Call, name: str) -> int | None:
    """Return a query parameter that is a moment. Raises Invalid."""
    given = text(call, name)
    return None if given is None else moment_of(given.replace(" ", "+"), f"query.{name}")  # a plus that was not quoted


def moment_of(given: str, location: str) -> int:
    """Return the moment that a text means. Raises Invalid."""
    try:
        return micros(given)
    except (ValueError, OverflowError):
        raise bad(f"{location.partition('.')[2]} must be a moment as RFC 3339 writes it", location) from None


def page_size(call: Call, default: int) -> int:
    """Return how many items a page may have: absent or 0 is the default, above page_max is page_max."""
    return min(call.integer("limit", default=0) or default, call.limits.page_max)


def entries(call: Call, default: int) -> int:
    """Return how many entries a page of ours may have: absent is the default, above page_max is page_max. Raises Invalid."""
    given = call.integer("limit", default=default)
    if given == 0:
        raise bad(f"limit must be from 1 to {call.limits.page_max}", "query.limit")
    return min(given, call.limits.page_max)


def offset(call: Call) -> int:
    """Return how many items are left out. Raises Invalid."""
    return call.integer("offset", default=0, maximum=MOST_OFFSET)


def trace_id(given: str, location: str) -> str:
    """Return a trace's id as it is stored; a run's id is one too. Raises Invalid."""
    plain = given.replace("-", "").lower()
    if not _TRACE.fullmatch(plain):
        raise bad("trace_id must be 32 hexadecimal digits: the root execution's id without dashes", location)
    return plain
