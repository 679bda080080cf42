"""The stdin of `dormice exec`: sent along with the command if it is there and short, else forwarded as it comes."""

from __future__ import annotations

import os
import select
import sys
from threading import Thread
from typing import Any, NamedTuple

from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client.errors import ConflictError, DormiceError

MOST_INLINE = 65_536
PIECE = 262_144


class Stdin(NamedTuple):
    """What is known of stdin before the command starts."""

    inline: str | None
    """The whole of it, to be sent along."""
    open: bool
    """Whether more may come, to be forwarded."""
    ahead: bytes = b""
    """What was read of it in order to find out."""


def open_stdin() -> Stdin:
    """Look at stdin without waiting for it."""
    try:
        terminal = os.isatty(0)
        if terminal:
            in_foreground = os.tcgetpgrp(0) == os.getpgrp()
            return Stdin(None, open=in_foreground)  # reading in the background would stop this program
        return _look()
    except OSError:  # closed
        return Stdin(None, open=False)


def _look() -> Stdin:
    ahead = b""
    while len(ahead) <= MOST_INLINE and select.select([0], [], [], 0)[0]:
        piece = os.read(0, PIECE)
        if not piece:
            return _whole(ahead)
        ahead += piece
    return Stdin(None, open=True, ahead=ahead)


def _whole(data: bytes) -> Stdin:
    try:
        return Stdin(data.decode() or None, open=False)
    except UnicodeDecodeError:
        return Stdin(None, open=True, ahead=data)


class Forwarder:
    """Forwards stdin to an execution until either ends. Has a connection and a thread of its own.

    The thread is a daemon: one that waits for a terminal must not keep the program from ending.
    """

    def __init__(self, connection: Connection, execution: dict[str, Any], stdin: Stdin) -> None:
        self._connection = connection
        self._path = f"{routes.execution(execution['machine_id'], execution['execution_id'])}/stdin"
        self._ahead = stdin.ahead
        self._offset = 0

    def start(self) -> None:
        Thread(target=self._run, name="stdin", daemon=True).start()

    def _run(self) -> None:
        try:
            if self._ahead:
                self._write(self._ahead)
            while piece := os.read(0, PIECE):
                self._write(piece)
            self._write(b"")
        except ConflictError:
            return  # the process has ended
        except (DormiceError, OSError) as error:
            print(f"dormice: stdin is no longer forwarded: {error}", file=sys.stderr)

    def _write(self, data: bytes) -> None:
        query = {"offset": self._offset, "eof": None if data else True}
        headers = {"content-type": "application/octet-stream"}
        self._connection.call("PUT", self._path, query=query, content=data, headers=headers)
        self._offset += len(data)
