"""Time and randomness as parameters: the engine asks here, tests put their own in."""

from __future__ import annotations

import os
import time
from typing import Protocol
from uuid import UUID

from dormice.domain import ids
from dormice.domain.execution import Micros


class Clock(Protocol):
    """Where the engine gets time and identifiers from."""

    def now(self) -> Micros:
        """Return the present moment."""
        ...

    def random(self, count: int) -> bytes:
        """Return unguessable bytes."""
        ...


class SystemClock:
    """The host's clock and randomness. Never goes back, even when the host's clock does."""

    def __init__(self) -> None:
        self._last = 0

    def now(self) -> Micros:
        self._last = max(self._last, time.time_ns() // 1000)
        return self._last

    def random(self, count: int) -> bytes:
        return os.urandom(count)


def new_machine_id(clock: Clock) -> str:
    """Mint a machine id."""
    return ids.machine_id(clock.now() // 1000, clock.random(10))


def new_execution_id(clock: Clock) -> str:
    """Mint an execution id."""
    return ids.execution_id(clock.now() // 1000, clock.random(10))


def new_boot_id(clock: Clock) -> UUID:
    """Mint the id of one start of a machine."""
    return UUID(bytes=clock.random(16), version=4)
