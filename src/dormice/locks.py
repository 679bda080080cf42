"""One process of a kind for each data directory."""

from __future__ import annotations

import logging
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

log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, what: str, *, patience: float = 0) -> Iterator[None]:
    """Hold a lock on the data directory. Raises SettingsError when another process has it, and still has it after `patience` seconds."""
    with host_errors(what):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not try_lock(fd):
            in_use = f"{path.parent} is in use by another {what}"
            if patience:
                log.warning("%s: waiting up to %g s for it to end", in_use, patience)
            _wait(fd, time.monotonic() + patience, in_use)
        yield
    finally:
        os.close(fd)


def _wait(fd: int, until: float, in_use: str) -> None:
    while time.monotonic() < until:
        time.sleep(_LOOK_AGAIN_SECONDS)
        if try_lock(fd):
            return
    raise SettingsError(in_use)
