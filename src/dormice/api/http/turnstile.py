"""Who is served next: organizations take turns, so that one with a thousand requests does not keep another's one waiting."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

PER_TURN = 4
"""Requests let in during one turn of the event loop. A short one takes about 0.1 ms, and in every turn all that is under way goes on too."""


class Turnstile:
    """Lets requests in at once while there are few, else one organization's after another's. Within one, first in first out."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._room = PER_TURN
        self._turn_due = False

    async def enter(self, organization_id: str) -> None:
        """Wait to be let in."""
        if self._room and not self._waiting:
            self._room -= 1
            self._await_turn()
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(organization_id, deque()).append(turn)
        await turn

    async def step_back(self, organization_id: str) -> None:
        """Let the others go first, in the midst of long work, and then go on alone in its turn."""
        self._await_turn()
        self._room = 0
        await self.enter(organization_id)
        self._room = 0

    def _await_turn(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn_due = False
        self._room = PER_TURN
        while self._room and self._waiting:
            organization_id, queue = self._waiting.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._waiting[organization_id] = queue  # behind the others
            if not turn.done():  # its request was not given up
                turn.set_result(None)
                self._room -= 1
        if self._room < PER_TURN:
            self._await_turn()
