"""User namespaces for machines: each has 65,536 uids and gids of the host to itself, and its own kernel quotas."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from dormice.node.launcher import Launcher
from dormice.node.runtime import RuntimeFailure

RANGE_SIZE = 65_536
_MOST_RANGES = 30_000

_INSIDE = {
    "max_user_namespaces": 0,
    "max_inotify_instances": 1_024,
    "max_inotify_watches": 131_072,
}
_HOST = {"max_user_instances": 1_024, "max_user_watches": 131_072}
"""The host's own quotas apply to each machine too: they must not be the smaller ones."""


@dataclass(frozen=True, slots=True)
class UserNamespace:
    base: int
    """First uid and gid on the host."""
    fd: int

    @property
    def path(self) -> Path:
        """Where a process outside ours finds it while the fd is open."""
        return Path(f"/proc/{os.getpid()}/fd/{self.fd}")


class UserNamespaces:
    """Hands out uid ranges that no living machine has, with a few namespaces made in advance. Blocking; thread-safe."""

    def __init__(self, launcher: Launcher, first: int, pool_size: int) -> None:
        self._launcher = launcher
        self._first = first
        self._pool_size = pool_size
        self._lock = threading.Lock()
        self._taken: set[int] = set()
        self._ready: deque[UserNamespace] = deque()

    def claim(self, base: int) -> None:
        """Mark the range of a machine that was found running as taken."""
        self._taken.add(base)

    def take(self) -> UserNamespace:
        """A fresh namespace; the caller closes its fd when the machine runs. Raises RuntimeFailure CAPACITY_EXCEEDED."""
        with contextlib.suppress(IndexError):
            return self._ready.popleft()
        return self._make()

    def release(self, base: int) -> None:
        """Let the range be used again: every process that had it is gone."""
        with self._lock:
            self._taken.discard(base)

    def refill(self) -> None:
        while len(self._ready) < self._pool_size:
            self._ready.append(self._make())

    def close(self) -> None:
        while self._ready:
            namespace = self._ready.popleft()
            os.close(namespace.fd)
            self.release(namespace.base)

    def _make(self) -> UserNamespace:
        with self._lock:
            candidates = (self._first + index * RANGE_SIZE for index in range(_MOST_RANGES))
            base = next((base for base in candidates if base not in self._taken), None)
            if base is None:
                raise RuntimeFailure("CAPACITY_EXCEEDED", "every uid range is taken", retryable=True)
            self._taken.add(base)
        try:
            return UserNamespace(base, self._launcher.userns(base, RANGE_SIZE, _INSIDE))
        except RuntimeFailure:
            self.release(base)
            raise


def raise_host_quotas() -> None:
    """Raise (never lower) the host's inotify quotas to what machines are promised."""
    for name, wanted in _HOST.items():
        file = Path("/proc/sys/fs/inotify") / name
        if int(file.read_text()) < wanted:
            file.write_text(str(wanted))
