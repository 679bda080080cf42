"""Idempotency-Keys: one scope per organization and route, 24 hours, across restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dormice.domain.errors import Conflict, RateLimited
from dormice.domain.limits import Limits
from dormice.engine.clock import Clock
from dormice.engine.orders import Caller, Idempotency
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed, Store

_HOUR_US = 3_600_000_000
_SHOWN_DIGITS = 8


class InFlight:
    """Requests whose first commit is under way: a duplicate waits for it, and is sent away after a second."""

    def __init__(self, store: Store, clock: Clock, limits: Limits, fingerprint: Callable[[bytes], str]) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits
        self._fingerprint = fingerprint
        self._first: dict[tuple[str, str], asyncio.Future[None]] = {}

    async def claim(self, caller: Caller, idempotency: Idempotency | None) -> IdempotencyClaim | None:
        """Return what the store needs to claim the key. Raises RateLimited while an equal key is being worked on."""
        if idempotency is None:
            return None
        scope = f"{caller.organization_id} {idempotency.scope}"
        slot = (scope, idempotency.key)
        if (first := self._first.get(slot)) is not None:
            done, _ = await asyncio.wait((first,), timeout=self._limits.idempotency_in_flight_ms / 1000)
            if not done:
                raise RateLimited(
                    "idempotency key already in flight: the first request with it is still being worked on",
                    retry_after_ms=self._limits.retry_after_ms,
                )
        else:
            self._first[slot] = asyncio.get_running_loop().create_future()
        now = self._clock.steady()
        return IdempotencyClaim(
            scope=scope,
            key=idempotency.key,
            request_hash=self._fingerprint(idempotency.request),
            now=now,
            keep_until=now + self._limits.idempotency_hours * _HOUR_US,
        )

    async def recall(self, claim: IdempotencyClaim | None) -> str | None:
        """Return what the key has made before, for a request that would be refused now. Raises Conflict on reuse.

        A refusal must not hide what an earlier request with the same key was given.
        """
        if claim is None:
            return None
        match await self._store.recall(claim):
            case Replayed(resource_id=resource_id):
                return resource_id
            case KeyReused() as answer:
                raise reused(answer)
            case None:
                return None

    def settle(self, claim: IdempotencyClaim | None) -> None:
        """Let the duplicates of a claimed request go on: its commit is made, or has failed."""
        if claim is not None and (first := self._first.pop((claim.scope, claim.key), None)) is not None:
            first.set_result(None)


def reused(answer: KeyReused) -> Conflict:
    """Return the error for a key that came with another request."""
    return Conflict(
        "Idempotency-Key was used before with a different request: send a new key with a new request",
        code="IDEMPOTENCY_KEY_REUSED",
        details={
            "expected_request_hash": answer.expected_request_hash[:_SHOWN_DIGITS],
            "provided_request_hash": answer.provided_request_hash[:_SHOWN_DIGITS],
        },
    )
