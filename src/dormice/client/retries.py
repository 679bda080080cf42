"""When a request is sent again, and how long to wait before that. Pure: no clock, no I/O.

Sending again is safe for every request: reads change nothing, and writes carry an idempotency key that stays the same
over all tries (or an offset, for stdin).
"""

from __future__ import annotations

from collections.abc import Mapping

FIRST_DELAY = 0.5
LONGEST_DELAY = 8.0
LONGEST_HINT = 60.0
"""Seconds. A server that asks for more than this is not waited for; the usual delay is used instead."""


def may_retry(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an answer with this status and these (lower-case) headers is worth another try.

    The server's `x-should-retry` decides; without it 408, 409, 429 and 5xx are tried again.
    """
    match headers.get("x-should-retry"):
        case "true":
            return status >= 400
        case "false":
            return False
        case _:
            return status in {408, 409, 429} or status >= 500


def delay(attempt: int, headers: Mapping[str, str], *, jitter: float) -> float:
    """Seconds before try number `attempt` + 2 (attempt 0 has just failed). `jitter` is random in [0, 1).

    The server's hint (`retry-after-ms`, else `retry-after` in seconds) wins if it is within (0, 60] seconds. Else
    0.5 s doubling up to 8 s, shortened by up to a quarter so that many clients do not come back together.
    """
    hint = _hint(headers)
    if hint is not None and 0 < hint <= LONGEST_HINT:
        return hint
    return min(FIRST_DELAY * 2.0**attempt, LONGEST_DELAY) * (1 - jitter / 4)


def _hint(headers: Mapping[str, str]) -> float | None:
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return float(headers[name]) * unit
        except (KeyError, ValueError):
            continue  # absent, or an HTTP date, which no Dormice server sends
    return None
