"""What is to be done at a moment: one heap, one service, no polling."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Hashable

from dormice.domain.execution import Micros
from dormice.engine.clock import Clock

AT_ONCE = 512
"""How many entries of one moment are begun together."""


class Agenda:
    """Calls back at moments of the steady clock. An entry is known by its key: a later one with the same key replaces it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[Micros, int, Hashable]] = []
        self._entries: dict[Hashable, tuple[int, Callable[[], Awaitable[None]]]] = {}
        self._count = 0
        self._earlier = asyncio.Event()

    def put(self, due: Micros, key: Hashable, action: Callable[[], Awaitable[None]]) -> None:
        """Have something done. It may be called again if it raises."""
        self._count += 1
        self._entries[key] = self._count, action
        if not self._heap or due < self._heap[0][0]:
            self._earlier.set()
        heapq.heappush(self._heap, (due, self._count, key))
        if len(self._heap) > 2 * len(self._entries) + AT_ONCE:
            self._heap = [entry for entry in self._heap if self._is_current(entry)]
            heapq.heapify(self._heap)

    def drop(self, key: Hashable) -> None:
        """Forget an entry."""
        self._entries.pop(key, None)

    def wake(self) -> None:
        """Look at what is due: the clock was moved."""
        self._earlier.set()

    def __len__(self) -> int:
        return len(self._entries)

    async def turn(self) -> None:
        """Wait for the next moment and do what is due. What raises is put back, and raised."""
        self._earlier.clear()
        due = self._due()
        if not due:
            timeout = (self._heap[0][0] - self._clock.steady()) / 1_000_000 if self._heap else None
            try:
                async with asyncio.timeout(timeout):
                    await self._earlier.wait()
            except TimeoutError:
                pass
            return
        results = await asyncio.gather(*(action() for _, action in due), return_exceptions=True)
        failures = []
        for (key, action), result in zip(due, results, strict=True):
            if isinstance(result, BaseException):
                failures.append(result)
                if key not in self._entries:
                    self.put(self._clock.steady(), key, action)
        if failures:
            raise failures[0]

    def _due(self) -> list[tuple[Hashable, Callable[[], Awaitable[None]]]]:
        now = self._clock.steady()
        due: list[tuple[Hashable, Callable[[], Awaitable[None]]]] = []
        while self._heap and len(due) < AT_ONCE:
            entry = self._heap[0]
            if not self._is_current(entry):
                heapq.heappop(self._heap)
            elif entry[0] <= now:
                heapq.heappop(self._heap)
                due.append((entry[2], self._entries.pop(entry[2])[1]))
            else:
                break
        return due

    def _is_current(self, entry: tuple[Micros, int, Hashable]) -> bool:
        current = self._entries.get(entry[2])
        return current is not None and current[0] == entry[1]
