"""The loop that every service of the engine runs in: a failed turn is logged, backed off, and taken again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Never

log = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.1
LAST_BACKOFF_SECONDS = 5.0


async def attempt(
    name: str,
    turn: Callable[[], Awaitable[None]],
    failing: set[str] | None = None,
    *,
    fields: Mapping[str, str] | None = None,
) -> None:
    """Take one turn until it succeeds; meanwhile `name` is in `failing`. The one broad `except` of a turn is here.

    `fields` go into the log with each failure.
    """
    failing = set() if failing is None else failing
    backoff = FIRST_BACKOFF_SECONDS
    while True:
        try:
            await turn()
        except Exception:
            failing.add(name)
            log.exception("%s: a turn failed and is taken again in %.1f s", name, backoff, extra=fields)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)
        else:
            failing.discard(name)
            return


async def serve(name: str, turn: Callable[[], Awaitable[None]], failing: set[str]) -> Never:
    """Take turns for ever."""
    while True:
        await attempt(name, turn, failing)
