"""Pauses before what has failed is tried again."""

from __future__ import annotations

import asyncio
import random

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 2.0


def spread(longest: float) -> float:
    """Return a time from half of `longest` on, at random, so that not all who have failed come again at once."""
    return longest * (0.5 + random.random() / 2)  # noqa: S311 - spreads load, guards nothing


class Backoff:
    """The pauses of one who tries again and again: each twice as long as the one before, up to a bound."""

    def __init__(self) -> None:
        self._longest = FIRST_SECONDS

    def reset(self) -> None:
        """It has worked: the next pause is a first one."""
        self._longest = FIRST_SECONDS

    async def pause(self) -> None:
        """Wait before the next try."""
        await asyncio.sleep(spread(self._longest))
        self._longest = min(self._longest * 2, LONGEST_SECONDS)
