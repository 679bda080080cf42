"""Waiting for a condition, up to a deadline: the one place in the tests where a pause is allowed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_SECONDS = 0.01


def wait_until(condition: Callable[[], T | None], timeout: float, describe: str) -> T:
    """Return the first true value of `condition`. Raises AssertionError after `timeout` seconds."""
    until = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {timeout} s: {describe}; last: {value!r}")
        time.sleep(PAUSE_SECONDS)
    return value


async def wait_until_async(condition: Callable[[], Awaitable[T | None]], timeout: float, describe: str) -> T:  # noqa: ASYNC109 - the deadline is for the whole
    """`wait_until` for a condition that is awaited."""
    until = time.monotonic() + timeout
    while not (value := await condition()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {timeout} s: {describe}; last: {value!r}")
        await asyncio.sleep(PAUSE_SECONDS)
    return value


async def others_run(seconds: float = 0) -> None:
    """Let other tasks (and, above 0, other threads) go on: for loops that have a deadline of their own."""
    await asyncio.sleep(seconds)
