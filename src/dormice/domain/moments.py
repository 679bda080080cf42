"""Moments as text."""

from __future__ import annotations

from datetime import UTC, datetime

from dormice.domain.execution import Micros


def rfc3339(moment: Micros) -> str:
    """A moment with six digits of the second and an offset, which every version of Python reads (RFC 3339, section 5.6)."""
    return datetime.fromtimestamp(moment / 1_000_000, UTC).isoformat(timespec="microseconds")


def micros(text: str) -> Micros:
    """The moment that an ISO 8601 text means; one without an offset is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)
