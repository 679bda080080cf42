"""Running the function of a step: its attempts, in the event loop or on a thread."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from dormice.workflows.backoff import spread
from dormice.workflows.errors import NonRetryable


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a step, or a whole run, is tried, and how long the pauses are, in seconds: each from half of its length on at random."""

    attempts: int = 3
    """With the first one; at least 1."""
    first_pause: float = 0.5
    factor: float = 2.0
    longest_pause: float = 30.0

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise ValueError(f"attempts must be a whole number of at least 1, not {self.attempts!r}")
        for name, least in (("first_pause", 0), ("factor", 1), ("longest_pause", 0)):
            value = getattr(self, name)
            if not least <= value < math.inf:
                raise ValueError(f"{name} must be a number of at least {least}, not {value!r}")

    def pause(self, failures: int) -> float:
        """The pause after so many failures: from half of it on at random."""
        return spread(min(self.first_pause * self.factor ** (failures - 1), self.longest_pause))


async def run(function: Callable[..., Any], arguments: tuple[Any, ...], retry: Retry, threads: Executor) -> Any:
    """Return what the function returns; raise what its last attempt raises."""
    failures = 0
    while True:
        try:
            return await _once(function, arguments, threads)
        except NonRetryable:
            raise
        except Exception:
            failures += 1
            if failures >= retry.attempts:
                raise
        await asyncio.sleep(retry.pause(failures))


async def _once(function: Callable[..., Any], arguments: tuple[Any, ...], threads: Executor) -> Any:
    if is_async(function):
        return await function(*arguments)
    result = await _on_thread(function, arguments, threads)
    return await result if inspect.isawaitable(result) else result


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - an object whose call is a coroutine function


async def _on_thread(function: Callable[..., Any], arguments: tuple[Any, ...], threads: Executor) -> Any:
    context = contextvars.copy_context()
    running = threads.submit(context.run, function, *arguments)
    ended = asyncio.wrap_future(running)
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        # A thread cannot be stopped: as long as it runs, so does the step.
        while not (running.cancel() or ended.done()):
            try:
                await asyncio.wait([ended])
            except asyncio.CancelledError:
                continue
        if ended.done() and not ended.cancelled():
            ended.exception()  # it is looked at, so that nobody complains that it was not
        raise
