"""Forgets what has ended and was kept for long enough: executions with their logs, then destroyed machines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from dormice.domain.limits import Limits
from dormice.engine.clock import Clock
from dormice.store.interface import Store

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 60.0
LEAST_PAUSE_SECONDS = 0.02
PAUSES_PER_PIECE = 9
"""Pauses so many times as long as a piece took: a tenth of the store's time at most, on a slow disk too."""
_HOUR_US = 3_600_000_000


class Retention:
    """Deletes in pieces of milliseconds, with long pauses between them, so that nobody notices."""

    def __init__(self, *, store: Store, clock: Clock, limits: Limits, forgotten: Callable[[], Awaitable[None]]) -> None:
        """`forgotten` is called behind every piece: what holds on to what is deleted lets go."""
        self._store = store
        self._forgotten = forgotten
        self._clock = clock
        # A key that still counts must find what it made.
        self._usage_days = limits.keep_usage_days
        self._hours = limits.keep_finished_hours and max(limits.keep_finished_hours, limits.idempotency_hours)

    async def turn(self) -> None:
        """Delete a piece of what is due, then pause. Raises StoreUnavailable."""
        began = asyncio.get_running_loop().time()
        deleted = await self.delete()
        took = asyncio.get_running_loop().time() - began
        await asyncio.sleep(max(LEAST_PAUSE_SECONDS, PAUSES_PER_PIECE * took) if deleted else LOOK_EVERY_SECONDS)

    async def delete(self) -> int:
        """Delete a piece of what is due now; return how many rows it took, 0 when nothing is left."""
        # What ended is dated by the one, its time passes by the other: where somebody has set the host's clock, the longer time counts.
        now = min(self._clock.now(), self._clock.steady())
        deleted = 0
        if self._hours:
            deleted = await self._store.delete_finished(now - self._hours * _HOUR_US)
        if deleted:
            await self._forgotten()
        if self._usage_days and not deleted:
            deleted = await self._store.usage.forget(now - self._usage_days * 24 * _HOUR_US)
        return deleted
