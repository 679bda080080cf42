"""Who is served next: organizations take turns, so that one with a thousand requests does not keep another's one waiting."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

PER_TURN = 16
"""Requests let in during one turn of the event loop. A short one takes about 0.1 ms, and in every turn all that is under way goes on too."""


class Turnstile:
    """Lets requests in at once while there are few, else one organization's after another's. Within one, first in first out."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[tuple[asyncio.Future[None], int]]] = OrderedDict()
        """What waits, and how much of a turn it takes."""
        self._room = PER_TURN
        self._turn_due = False

    async def enter(self, organization_id: str) -> None:
        """Wait to be let in."""
        if self._room and not self._waiting:
            self._room -= 1
            self._await_turn()
        else:
            await self._wait(organization_id, 1)

    async def step_back(self, organization_id: str) -> None:
        """Let the others go first, in the midst of long work, and then go on alone in its turn."""
        await self._wait(organization_id, PER_TURN)

    async def _wait(self, organization_id: str, share: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(organization_id, deque()).append((turn, share))
        self._await_turn()
        await turn

    def _await_turn(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn_due = False
        self._room = PER_TURN
        while self._waiting:
            organization_id, queue = next(iter(self._waiting.items()))
            turn, share = queue[0]
            if share > self._room:
                break
            queue.popleft()
            self._waiting.move_to_end(organization_id)
            if not queue:
                del self._waiting[organization_id]
            if not turn.done():  # its request was not given up
                turn.set_result(None)
                self._room -= share
        if self._room < PER_TURN:
            self._await_turn()
