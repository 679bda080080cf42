"""Work that must be finished even if the one who asked for it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from dormice.engine.service import attempt

T = TypeVar("T")


class Tasks:
    """Runs coroutines in the service's one TaskGroup, so that a dropped connection cannot stop them half-way."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end; the caller may be cancelled meanwhile. What it raises goes to the caller."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._group.create_task(_deliver(work, result))
        return await result  # of this caller alone: cancelled with it, and no shield costs a turn of the loop

    def start(self, name: str, turn: Callable[[], Awaitable[None]]) -> None:
        """Run something that nobody waits for, again and again until it does not raise."""
        self._group.create_task(attempt(name, turn), name=name)


async def _deliver(work: Coroutine[Any, Any, T], result: asyncio.Future[T]) -> None:
    try:
        done = await work
    except Exception as error:  # noqa: BLE001 - not swallowed: raised where the result is awaited
        if not result.cancelled():
            result.set_exception(error)
    else:
        if not result.cancelled():
            result.set_result(done)
