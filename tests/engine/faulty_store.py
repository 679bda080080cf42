"""A real store behind a seam: chosen operations fail, before or after their commit, come late, or are answered late."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from dormice.store.interface import Store, StoreUnavailable


class Faults:
    """What is to go wrong, by the name of the operation."""

    def __init__(self) -> None:
        self._failing: Counter[str] = Counter()
        self._down: Callable[[], bool] = lambda: False
        self._gates: dict[str, asyncio.Event] = {}
        self._reached: dict[str, asyncio.Event] = {}
        self._held: dict[str, asyncio.Event] = {}
        self.calls: Counter[str] = Counter()

    def fail(self, name: str, times: int = 1) -> None:
        """Let the next calls of an operation raise StoreUnavailable; they leave no trace."""
        self._failing[name] += times

    def heal(self) -> None:
        """Let everything succeed again."""
        self._failing.clear()

    def down_while(self, condition: Callable[[], bool]) -> None:
        """Let every operation raise StoreUnavailable as long as the condition holds."""
        self._down = condition

    @asynccontextmanager
    async def late(self, name: str) -> AsyncIterator[asyncio.Event]:
        """Hold the answers of an operation, which is committed, until the block ends. Yields: one is being held."""
        gate = self._gates[name] = asyncio.Event()
        reached = self._reached[name] = asyncio.Event()
        try:
            yield reached
        finally:
            del self._gates[name]
            gate.set()

    @asynccontextmanager
    async def held(self, name: str) -> AsyncIterator[asyncio.Event]:
        """Hold an operation, which is not committed, until the block ends. Yields: one is being held."""
        gate = self._held[name] = asyncio.Event()
        reached = self._reached[name] = asyncio.Event()
        try:
            yield reached
        finally:
            del self._held[name]
            gate.set()

    def wrap(self, store: Store) -> Store:
        """Return the store with these faults."""
        return cast("Store", _Faulty(store, self))

    async def around(self, name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do one operation as it is to go."""
        self.calls[name] += 1
        if (gate := self._held.get(name)) is not None:
            self._reached[name].set()
            await gate.wait()
        if self._down():
            raise StoreUnavailable("the disk is full, says the test")
        if self._failing[name]:
            self._failing[name] -= 1
            raise StoreUnavailable(f"{name} fails, says the test")
        answer = await work()
        if (gate := self._gates.get(name)) is not None:
            self._reached[name].set()
            await gate.wait()
        return answer


class _Faulty:
    """Any of the store's interfaces: what is awaited goes through `Faults`, aggregates are wrapped in turn."""

    def __init__(self, real: Any, faults: Faults) -> None:
        self._real, self._faults = real, faults

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if not callable(real):
            return _Faulty(real, self._faults)

        async def call(*values: Any, **named: Any) -> Any:
            return await self._faults.around(name, lambda: real(*values, **named))

        return call
