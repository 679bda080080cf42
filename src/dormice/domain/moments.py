"""Moments as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from dormice.domain.execution import Micros

_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)


def rfc3339(moment: Micros) -> str:
    """A moment with six digits of the second and an offset, which every version of Python reads (RFC 3339, section 5.6)."""
    seconds, below = divmod(moment, 1_000_000)
    return f"{_second(seconds)}.{below:06}+00:00"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    """What the moments of one second begin with: most that are told are of the last few."""
    return (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds")[:19]


def micros(text: str) -> Micros:
    """The moment that an ISO 8601 text means; one without an offset is UTC.

    Raises ValueError, and OverflowError for what lies beyond the years 1 to 9999 in UTC.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment.astimezone(UTC) - _EPOCH) // _MICROSECOND
