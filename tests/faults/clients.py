"""What all loads have in common: clients that ask until they are answered, and end when they are told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any, Protocol

from tests.faults.stack import Victim
from tests.faults.wire import NoAnswer, Request, Wire
from tests.wait import others_run

ANSWER_SECONDS = 60.0
"""A client that has no answer for so long says that it never gets one."""
SETTLE_SECONDS = 60.0
AGAIN_SECONDS = 0.5
POLL_MS = 10_000
COME_AGAIN = frozenset({429, 503})
_DONE = {200, 202}
_REFUSED = {404, 409}


class Refusable(Protocol):
    """Something that may be refused for good."""

    refused: str


class Clients:
    """Tasks, each of which does the same thing again and again. Everything random is drawn from `random`."""

    def __init__(self, victim: Victim, strange: list[str], random: Random) -> None:
        """`strange` takes in answers that no request should get."""
        self._victim = victim
        self._strange = strange
        self._random = random
        self._stopping = False
        self._clients: list[asyncio.Task[None]] = []
        self._wire = Wire(victim.live.port, victim.live.api_key)
        self.in_flight = 0
        """What was acknowledged and has not ended, as far as the clients know."""
        self.most_in_flight = 0

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._clients.append(asyncio.get_running_loop().create_task(self._until_stopped(work)))

    async def _until_stopped(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while not self._stopping:
            await work()

    def check(self) -> None:
        """Raise what a client has died of."""
        for client in self._clients:
            if client.done() and not client.cancelled():
                client.result()

    async def end(self) -> None:
        """Ask for nothing more, and wait until all that was asked for has ended."""
        self._stopping = True
        _, stuck = await asyncio.wait(self._clients, timeout=SETTLE_SECONDS)
        if stuck:
            self._strange.append(f"in a way that {len(stuck)} clients never got to their end")
        for client in stuck:
            client.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        self.check()

    def _began(self) -> None:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def _key(self, kind: str) -> str:
        return f"{kind}-{self._random.getrandbits(48):012x}"

    async def _ask(
        self, request: Request, refused: Refusable | None = None, *, refusals: frozenset[int] = frozenset()
    ) -> dict[str, Any] | None:
        """Ask until there is an answer. None if it is a refusal (404, 409, or one of `refusals`), which is written down in `refused`."""
        what = f"{request.method} {request.path}"
        deadline = asyncio.get_running_loop().time() + ANSWER_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            with suppress(NoAnswer):
                status, body = await self._wire.ask(request)
                if status in _DONE:
                    return dict(json.loads(body))
                if status in _REFUSED or status in refusals:
                    if refused is not None:
                        refused.refused = body.decode()
                    return None
                if status not in COME_AGAIN:
                    self._strange.append(f"{status} to {what}: {body[:200].decode()}")
                    return None
            if request.query and "wait_ms" in request.query:  # an answer may be held back longer than a server lives
                request = replace(request, query={**request.query, "wait_ms": 0})
            await others_run(self._random.uniform(0.2, 1) * AGAIN_SECONDS)
        self._strange.append(f"never to {what}")
        return None

    async def _walk_out(self, request: Request) -> None:
        """Ask, and go away before the answer."""
        with suppress(NoAnswer):
            await self._wire.walk_out(request, self._random.uniform(0, 0.02))
