"""Server-sent events: framing, keep-alives, and errors that come once the stream has begun."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dormice.api.http.errors import describe
from dormice.api.http.replies import Stream
from dormice.domain.errors import DormiceError

MEDIA_TYPE = b"text/event-stream"
KEEP_ALIVE = b": ka\n\n"
KEEP_ALIVE_MS = 15_000


def frame(name: str, data: bytes, *, identity: int) -> bytes:
    """Return one event; `data` is JSON, so it has no line end of its own."""
    return b"event: %s\nid: %d\ndata: %s\n\n" % (name.encode(), identity, data)


def event_stream(events: AsyncIterator[bytes]) -> Stream:
    """Return the answer that sends these frames."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return Stream(events, media_type=MEDIA_TYPE, headers=headers, last_words=_error)


def _error(error: DormiceError) -> bytes:
    """An error of ours is the last event, as the status line is long gone."""
    return b"event: error\ndata: %s\n\n" % describe(error).body
