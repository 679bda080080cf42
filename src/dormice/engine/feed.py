"""Hints that something changed. The store is the truth: a lost hint costs latency, never a result."""

from __future__ import annotations

import asyncio


class Feed:
    """Wakes whoever waits for a key (an execution id, a machine id). Keeps nothing for those who come later."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def notify(self, key: str) -> None:
        """Wake everybody who waits for the key now."""
        waiting = self._waiting.pop(key, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def ticket(self, key: str) -> asyncio.Future[None]:
        """Return a future that the next notify completes. Take it before looking, so that no change falls between."""
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting[key] = waiting
        return waiting

    async def wait(self, ticket: asyncio.Future[None], seconds: float) -> bool:
        """Wait for a ticket, at most so many seconds; say whether it came."""
        if ticket.done():
            return True
        if seconds <= 0:
            return False
        done, _ = await asyncio.wait((ticket,), timeout=seconds)
        return bool(done)

    def forget(self, key: str) -> None:
        """Wake and drop the key: nothing more will happen to it."""
        self.notify(key)
