"""Waiting for what must happen, and for what may."""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Callable, Coroutine
from typing import Any

from dormice.node.runtime import RuntimeFailure

log = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 2.0


async def surely(machine_id: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do what must be done, however often it fails: the server waits for nothing but the news of it."""
    backoff = FIRST_BACKOFF_SECONDS
    while True:
        try:
            await work()
        except (RuntimeFailure, OSError):
            words = "a machine could not be ended; that is tried again in %.1f s"
            log.exception(words, backoff, extra={"machine_id": machine_id})
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)
        else:
            return


async def within(event: Coroutine[Any, Any, Any], seconds: float) -> bool:
    """Wait for an event, at most so long; say whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event
    except TimeoutError:
        return False
    return True


def wait_readable(fd: int, timeout: float) -> bool:
    """Wait, blocking, until there is something to read, at most so many seconds; say whether there is."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))
