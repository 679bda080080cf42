"""Holding a mounted file system still, so that what is on its disk is whole and clean, whoever dies meanwhile."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dormice.node.runtime import RuntimeFailure

MOST_SECONDS = 30
"""A file system is thawed after so long, whatever becomes of its copy."""
_FIFREEZE, _FITHAW = 0xC004_5877, 0xC004_5878
_WATCHDOG = '[ "$(timeout "$1" head --bytes=1)" ] || { fsfreeze --unfreeze "$0"; [ -z "$2" ] || echo 0 > "$2"; }'
"""Thaws unless it is told in time that this was done: its input also ends with the process that has the other end."""
_EXPEDITED = Path("/sys/kernel/rcu_expedited")
"""To freeze, the kernel waits three times until every CPU has passed a quiet point: 40 ms, or 1 ms if it asks them to hurry."""


@contextmanager
def frozen(directory: Path, *, seconds: int = MOST_SECONDS) -> Iterator[None]:
    """Nothing is written to the file system in this block, and its journal is empty. Those who write wait.

    Raises RuntimeFailure when it cannot be frozen, or was thawed before the block was done: then a copy made in it is worth nothing.
    """
    mount = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.ExitStack() as after:
            with _HURRY.held() as hurried:
                after.enter_context(_watchdog(directory, seconds, hurried=hurried))
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


class _Hurry:
    """Has the kernel hurry while anybody freezes. It is the whole host's, so not for longer, and what an administrator set stays."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._ours = False

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Yields whether it has to be undone."""
        with self._lock:
            if not self._users:
                self._ours = _expedite()
            self._users += 1
        try:
            yield self._ours
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and self._ours:
                    _EXPEDITED.write_text("0")


def _expedite() -> bool:
    """Whether it did not hurry before. Where we may not ask for it, it takes its time."""
    try:
        if _EXPEDITED.read_text().strip() != "0":
            return False
        _EXPEDITED.write_text("1")
    except OSError:
        return False
    return True


_HURRY = _Hurry()


@contextmanager
def _watchdog(directory: Path, seconds: int, *, hurried: bool) -> Iterator[None]:
    undo = [str(_EXPEDITED)] if hurried else []
    command = ["/bin/sh", "-c", _WATCHDOG, str(directory), str(seconds), *undo]
    watchdog = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    # Whoever waits for the copy does not wait for its end.
    reaper = threading.Thread(target=watchdog.wait, name="watchdog")
    try:
        reaper.start()
        yield
    finally:
        assert watchdog.stdin is not None  # noqa: S101 - a pipe, as asked for
        with contextlib.suppress(BrokenPipeError), watchdog.stdin:  # its time was over
            watchdog.stdin.write(b".")
