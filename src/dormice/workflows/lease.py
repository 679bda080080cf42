"""Until when a worker may go on with what it has, without hearing from the server."""

from __future__ import annotations

import asyncio

_SHARE = 0.8
"""Of the time after which the server gives a silent worker's runs to others; the rest is for letting go of them."""
_ANNOUNCEMENTS = 3
_BEFORE_ANY = 3.0


class Lease:
    """Counted from when a request was sent that was answered, by a clock that goes on while the process is stopped."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._until = 0.0

    @property
    def held(self) -> bool:
        """Whether the runs are still this worker's, for certain."""
        return asyncio.get_running_loop().time() < self._until

    @property
    def left(self) -> float:
        """Seconds until it ends."""
        return self._until - asyncio.get_running_loop().time()

    @property
    def pause(self) -> float:
        """Seconds after which the worker has to be heard of again."""
        return self._seconds / _ANNOUNCEMENTS or _BEFORE_ANY

    def begin(self, lost_ms: int, sent: float) -> None:
        """Know how long the server waits for a silent worker."""
        self._seconds = lost_ms / 1000 * _SHARE
        self.extend(sent)

    def extend(self, sent: float) -> None:
        """A request that was sent at that moment was answered."""
        self._until = max(self._until, sent + self._seconds)
