"""Slots: what a machine needs that takes time to make and does not depend on which machine it will be.

A slot is 65,536 uids of the host, a user namespace over them, cgroups, and a process that waits inside those cgroups for the command
that starts the machine. Entering a cgroup takes the kernel ten milliseconds and more; a few slots made in advance hide that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from dataclasses import dataclass

from dormice.node.cgroups import Cgroups
from dormice.node.launcher import Launcher, Standby
from dormice.node.runtime import RuntimeFailure

_log = logging.getLogger(__name__)

RANGE_SIZE = 65_536
DYING_SECONDS = 5.0
"""How long whoever undoes a range waits for the last of its processes. Nobody who makes one waits for another."""
_MOST_RANGES = 30_000

_INSIDE = {
    "max_user_namespaces": 0,
    "max_inotify_instances": 1_024,
    "max_inotify_watches": 131_072,
}


def cgroup_name(base: int) -> str:
    """The name of the cgroups of the slot whose first uid is `base`."""
    return f"uid-{base}"


@dataclass(frozen=True, slots=True)
class Slot:
    base: int
    """First uid and gid on the host."""
    userns: int
    """An fd; the namespace lives as long as it is open or a process is inside."""
    standby: Standby

    @property
    def cgroup(self) -> str:
        return cgroup_name(self.base)

    def close(self) -> None:
        """Let go of what the node holds of it. A machine that was started in the slot goes on."""
        os.close(self.userns)
        self.standby.close()


class Slots:
    """Hands out slots that no living machine has. Blocking; safe to use from several threads."""

    def __init__(self, launcher: Launcher, cgroups: Cgroups, *, first_uid: int, pool_size: int) -> None:
        self._launcher = launcher
        self._cgroups = cgroups
        self._first_uid = first_uid
        self._pool_size = pool_size
        self._lock = threading.Lock()
        self._taken: set[int] = set()
        self._unclean: set[int] = set()
        """Of these, the ranges that something is left of which could not be removed."""
        self._ready: deque[Slot] = deque()

    def claim(self, base: int) -> None:
        """Mark the range of a machine that was found running as taken."""
        self._taken.add(base)

    def take(self) -> Slot:
        """A fresh slot. Raises RuntimeFailure CAPACITY_EXCEEDED when every range is taken."""
        with contextlib.suppress(IndexError):
            return self._ready.popleft()
        return self._make()

    def release(self, base: int) -> None:
        """Let the range be used again: its processes and cgroups are gone."""
        with self._lock:
            self._taken.discard(base)

    def refill(self) -> None:
        while len(self._ready) < self._pool_size:
            self._ready.append(self._make())

    def close(self) -> None:
        """Undo the slots that nobody took."""
        while self._ready:
            self.put_back(self._ready.popleft())
        self._clean(DYING_SECONDS)

    def put_back(self, slot: Slot) -> None:
        """Undo a slot that nothing was started in."""
        slot.close()
        self._undo(slot.base)

    def _make(self) -> Slot:
        self._clean(0)
        base = self._free_range()
        name = cgroup_name(base)
        try:
            self._cgroups.create(name, base)
            standby = self._launcher.stand_by(self._cgroups.entrances(name), self._cgroups.init_entrance(name))
            try:
                return Slot(base, self._launcher.userns(base, RANGE_SIZE, _INSIDE), standby)
            except (RuntimeFailure, OSError):
                standby.close()
                raise
        except (RuntimeFailure, OSError):
            self._undo(base)
            raise

    def _undo(self, base: int) -> None:
        """Remove what was made in a range and let it be used again; if that cannot be done now, later."""
        try:
            self._remove(base, DYING_SECONDS)
        except OSError:
            _log.warning("what was made in %s is removed later", cgroup_name(base), exc_info=True)

    def _clean(self, timeout: float) -> None:
        """Try again what could not be removed, waiting so many seconds for each."""
        with self._lock:  # whoever takes a range out is the only one to undo and to release it
            unclean, self._unclean = self._unclean, set()
        for base in unclean:
            try:
                self._remove(base, timeout)
            except OSError:
                _log.debug("what was made in %s is still there", cgroup_name(base), exc_info=True)

    def _remove(self, base: int, timeout: float) -> None:
        """Remove what was made in a range and let it be used again. Raises OSError; it is tried again before the next one is made."""
        name = cgroup_name(base)
        try:
            self._cgroups.kill(name)
            self._cgroups.remove(name, timeout)
        except OSError:
            with self._lock:
                self._unclean.add(base)
            raise
        self.release(base)

    def _free_range(self) -> int:
        with self._lock:
            candidates = (self._first_uid + index * RANGE_SIZE for index in range(_MOST_RANGES))
            base = next((base for base in candidates if base not in self._taken), None)
            if base is None:
                raise RuntimeFailure("CAPACITY_EXCEEDED", "every uid range is taken", retryable=True)
            self._taken.add(base)
        return base
