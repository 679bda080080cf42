"""Moments as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dormice.domain.execution import Micros

_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)


def rfc3339(moment: Micros) -> str:
    """A moment with six digits of the second and an offset, which every version of Python reads (RFC 3339, section 5.6)."""
    return (_EPOCH + moment * _MICROSECOND).isoformat(timespec="microseconds")


def micros(text: str) -> Micros:
    """The moment that an ISO 8601 text means; one without an offset is UTC.

    Raises ValueError, and OverflowError for what lies beyond the years 1 to 9999 in UTC.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment.astimezone(UTC) - _EPOCH) // _MICROSECOND
