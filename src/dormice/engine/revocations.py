"""What ends with an API key: the streams and connections that would outlive its revocation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from dormice.domain.errors import Unauthenticated

REVOKED = "the API key was revoked"


class Revocations:
    """Hears of every revocation while this server runs, and passes it on at once."""

    def __init__(self) -> None:
        self._revoked: set[str] = set()
        self._listeners: dict[str, set[Callable[[], None]]] = {}

    def announce(self, key_id: str) -> None:
        """Tell everybody who holds on to the key that it is revoked. May be repeated."""
        self._revoked.add(key_id)
        for end in self._listeners.pop(key_id, ()):
            end()

    @contextmanager
    def heard(self, key_id: str, end: Callable[[], None]) -> Iterator[None]:
        """Have `end` called if the key is revoked in the block. Raises Unauthenticated if it was since somebody was let in by it."""
        if key_id in self._revoked:
            raise Unauthenticated(REVOKED, code="AUTH_INVALID")
        self._listeners.setdefault(key_id, set()).add(end)
        try:
            yield
        finally:
            if (others := self._listeners.get(key_id)) is not None:
                others.discard(end)
                if not others:
                    del self._listeners[key_id]

    @asynccontextmanager
    async def while_valid(self, key_id: str) -> AsyncIterator[None]:
        """Cancel the block as soon as the key is revoked. Raises Unauthenticated then."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as block:
                with self.heard(key_id, lambda: block.reschedule(loop.time())):
                    yield
        except TimeoutError:
            if not block.expired():
                raise
            raise Unauthenticated(REVOKED, code="AUTH_INVALID") from None
