"""Taking the lock of an open file without waiting: flock(2), which holds until the last copy of the descriptor is closed."""

from __future__ import annotations

import fcntl


def try_lock(fd: int) -> bool:
    """Whether nobody else had the file locked; if so, we have from now on. Raises OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int) -> None:
    """Give the lock back at once, whoever has inherited a copy of the descriptor. Raises OSError."""
    fcntl.flock(fd, fcntl.LOCK_UN)
