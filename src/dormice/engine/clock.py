"""Time and randomness as parameters: the engine asks here, tests put their own in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from dormice.domain import ids
from dormice.domain.execution import Micros


class Clock(Protocol):
    """Where the engine gets time and identifiers from."""

    def now(self) -> Micros:
        """Return the present moment, for records."""
        ...

    def steady(self) -> Micros:
        """Return the moment that deadlines are set and measured by: nobody puts it forward or back."""
        ...

    def random(self, count: int) -> bytes:
        """Return unguessable bytes."""
        ...


class SystemClock:
    """The host's clocks and randomness.

    What is recorded follows the host's clock when that is put forward; when it is put back, it goes on at half its pace until
    both agree, so that what happened later is never recorded as earlier. Deadlines go by the time that has really passed since
    this process began: a host clock that is set is no reason to put machines to sleep or to give anything up. They are kept in
    the store as moments of the host's clock, as it would be had nobody set it; for the next process that is all there is.
    """

    def __init__(
        self, wall: Callable[[], int] = time.time_ns, monotonic: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._recorded = wall()
        self._looked_at = monotonic()
        self._zero = self._recorded - self._looked_at

    def now(self) -> Micros:
        before, self._looked_at = self._looked_at, self._monotonic()
        self._recorded = max(self._wall(), self._recorded + (self._looked_at - before) // 2)
        return self._recorded // 1000

    def steady(self) -> Micros:
        return (self._zero + self._monotonic()) // 1000

    def random(self, count: int) -> bytes:
        return os.urandom(count)


def new_terminal_id(clock: Clock) -> str:
    """Mint a terminal's id."""
    return ids.terminal_id(clock.random(20))


def new_machine_id(clock: Clock) -> str:
    """Mint a machine id."""
    return ids.machine_id(clock.now() // 1000, clock.random(10))


def new_snapshot_id(clock: Clock) -> str:
    """Mint a snapshot id."""
    return ids.snapshot_id(clock.now() // 1000, clock.random(10))


def new_execution_id(clock: Clock) -> str:
    """Mint an execution id."""
    return ids.execution_id(clock.now() // 1000, clock.random(10))


def new_preview_id(clock: Clock) -> str:
    """Mint a preview id."""
    return ids.preview_id(clock.random(16))


def new_ssh_session_id(clock: Clock) -> str:
    """Mint the id of an SSH session."""
    return ids.ssh_session_id(clock.now() // 1000, clock.random(10))


def new_id(clock: Clock) -> str:
    """Mint the id of a run, a batch, a session, a schedule or a trigger: a UUIDv7."""
    return ids.uuid7(clock.now() // 1000, clock.random(10))


def new_boot_id(clock: Clock) -> UUID:
    """Mint the id of one start of a machine."""
    return UUID(bytes=clock.random(16), version=4)
