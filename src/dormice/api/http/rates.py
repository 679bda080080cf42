"""How many requests a key may make: a token bucket for each (https://en.wikipedia.org/wiki/Token_bucket)."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

from dormice.domain.errors import RateLimited
from dormice.domain.limits import Limits


class Rates:
    """Buckets by key. A key that has made no request for a while has a full one, which is the same as none."""

    def __init__(self, limits: Limits, now: Callable[[], float] = monotonic) -> None:
        self._per_second = limits.requests_per_second
        self._burst = max(limits.requests_burst, 1)
        self._now = now
        self._buckets: dict[str, tuple[float, float]] = {}
        """Tokens, and the second at which there were so many."""

    def take(self, key_id: str) -> None:
        """Take a token of the key's. Raises RateLimited, which says when there is one again."""
        if not self._per_second:
            return
        now = self._now()
        tokens, since = self._buckets.get(key_id, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._per_second)
        if tokens < 1:
            raise RateLimited(
                f"rate limit exceeded: a key may make {self._per_second} requests a second (requests_per_second), "
                f"{self._burst} at once after a pause (requests_burst)",
                retry_after_ms=math.ceil(1000 * (1 - tokens) / self._per_second),
                details={"rate_limit_scope": "key"},
            )
        self._buckets[key_id] = tokens - 1, now
