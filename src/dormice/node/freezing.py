"""Holding a mounted file system still, so that what is on its disk is whole and clean, whoever dies meanwhile."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dormice.node.runtime import RuntimeFailure

MOST_SECONDS = 30
"""A file system is thawed after so long, whatever becomes of its copy."""
_FIFREEZE, _FITHAW = 0xC004_5877, 0xC004_5878
_WATCHDOG = '[ "$(timeout "$1" head --bytes=1)" ] || fsfreeze --unfreeze "$0"'
"""Thaws unless it is told in time that this was done: its input also ends with the process that has the other end."""


@contextmanager
def frozen(directory: Path, *, seconds: int = MOST_SECONDS) -> Iterator[None]:
    """Nothing is written to the file system in this block, and its journal is empty. Those who write wait.

    Raises RuntimeFailure when it cannot be frozen, or was thawed before the block was done: then a copy made in it is worth nothing.
    """
    mount = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _watchdog(directory, seconds):
            try:
                fcntl.ioctl(mount, _FIFREEZE, 0)
            except OSError as error:
                words = f"the disk cannot be held still: {error.strerror}"
                raise RuntimeFailure("SNAPSHOT_FAILED", words, retryable=True) from error
            try:
                yield
            finally:
                in_time = _thaw(mount)
        if not in_time:
            words = f"the disk takes longer than {seconds} s to copy: put the machine to sleep first"
            raise RuntimeFailure("SNAPSHOT_FAILED", words)
    finally:
        os.close(mount)


def thaw(directory: Path) -> None:
    """Let a file system go on that a watchdog may have died over. One that is not frozen is no error. Raises OSError."""
    mount = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _thaw(mount)
    finally:
        os.close(mount)


def _thaw(mount: int) -> bool:
    """Whether it was frozen."""
    try:
        fcntl.ioctl(mount, _FITHAW, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


@contextmanager
def _watchdog(directory: Path, seconds: int) -> Iterator[None]:
    command = ["/bin/sh", "-c", _WATCHDOG, str(directory), str(seconds)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as watchdog:
        try:
            yield
        finally:
            with contextlib.suppress(BrokenPipeError):  # its time was over
                watchdog.communicate(b".")
