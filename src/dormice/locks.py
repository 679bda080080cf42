"""One process of a kind for each data directory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dormice.config import SettingsError
from dormice.directories import host_errors
from dormice.flock import try_lock

HANDOVER_SECONDS = 8.0
"""How long a role waits for an earlier one whose supervisor was killed, and which is about to end. Less than the supervisor gives a role to
find out that it cannot work."""
_LOOK_AGAIN_SECONDS = 0.05


@contextmanager
def locked(path: Path, what: str, *, patience: float = 0) -> Iterator[None]:
    """Hold a lock on the data directory. Raises SettingsError when another process has it, and still has it after `patience` seconds."""
    with host_errors(what):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + patience
    try:
        while not try_lock(fd):
            if time.monotonic() >= until:
                raise SettingsError(f"{path.parent} is in use by another {what}")
            time.sleep(_LOOK_AGAIN_SECONDS)
        yield
    finally:
        os.close(fd)
