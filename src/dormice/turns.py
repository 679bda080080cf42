"""Whose work is done next, where it takes long: few at once, one of each organization, and one organization's after another's."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Within an organization, first in first out."""

    def __init__(self, at_once: int) -> None:
        self._room = at_once
        self._working: set[str] = set()
        """Organizations whose turn it is."""
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, organization_id: str) -> AsyncIterator[None]:
        """Wait for the turn of the organization; it lasts for the block."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(organization_id, deque()).append(turn)
        self._begin()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had just come
                self._end(organization_id)
            raise
        try:
            yield
        finally:
            self._end(organization_id)

    def _begin(self) -> None:
        """Give what turns there are."""
        for organization_id in [one for one in self._waiting if one not in self._working]:
            if not self._room:
                return
            queue = self._waiting[organization_id]
            while queue and (turn := queue.popleft()):
                if not turn.done():  # it was not given up
                    turn.set_result(None)
                    self._room -= 1
                    self._working.add(organization_id)
                    break
            self._waiting.move_to_end(organization_id)
            if not queue:
                del self._waiting[organization_id]

    def _end(self, organization_id: str) -> None:
        self._room += 1
        self._working.remove(organization_id)
        self._begin()
