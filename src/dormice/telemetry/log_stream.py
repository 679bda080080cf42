"""Standard error as a stream for log records that nobody ever waits for.

Whoever reads it may be slow or stuck: a full pipe, a journal that does not take any more. A server that waited for it would
answer nobody. What cannot be written is kept up to a bound and written later, in order; what is beyond is counted and said.
"""

from __future__ import annotations

import os
import socket
import stat
from collections import deque
from collections.abc import Callable

KEPT_BYTES = 1 << 20
_LOST = (
    b'{"level":"warning","logger":"dormice.log","message":"%d log records were lost: standard error was not read"}\n'
)


class LogStream:
    """What `logging.StreamHandler` writes to; its lock makes it safe for several threads."""

    def __init__(self, fd: int) -> None:
        self._put, self._close = _writer(fd)
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._lost = 0

    def write(self, text: str) -> None:
        """Take a record."""
        data = text.encode(errors="backslashreplace")
        if self._lost or self._size + len(data) > KEPT_BYTES:  # in order: what comes after a loss is lost too
            self._lost += 1
        else:
            self._keep(data)

    def flush(self) -> None:
        """Write what can be written now; an error is no reason to stop, and standard error may work again."""
        while self._waiting:
            data = self._waiting[0]
            try:
                written = self._put(data)
            except OSError:
                return
            self._size -= written
            if written < len(data):
                self._waiting[0] = data[written:]
                continue
            self._waiting.popleft()
            if not self._waiting and self._lost:
                self._keep(_LOST % self._lost)
                self._lost = 0

    def close(self) -> None:
        """Let go of it."""
        self._close()

    def _keep(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)


def _writer(fd: int) -> tuple[Callable[[bytes], int], Callable[[], None]]:
    """Return how to write without waiting, and how to stop. The descriptor itself is shared with others, who may want to wait."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        line = socket.socket(fileno=os.dup(fd))
        return lambda data: line.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL), line.close
    own = _reopened(fd) if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) else os.dup(fd)
    return lambda data: os.write(own, data), lambda: os.close(own)


def _reopened(fd: int) -> int:
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return os.dup(fd)  # another user's: it is written to all the same
