"""The terminal of this program as a window of one on a machine: keys go there, what that shows comes here."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from time import monotonic
from types import FrameType

from dormice.cli.endings import told_to_end
from dormice.cli.exec import write
from dormice.cli.screen import Screen
from dormice.client._sync.connection import Connection
from dormice.client._sync.terminal_connection import TerminalConnection, open_terminal
from dormice.client.errors import APIConnectionError, APIStatusError, ConflictError, TerminalError

ESCAPE = 0x1D
"""Ctrl-]"""
LEAVE = ord("d")
GIVE_UP_SECONDS = 600.0
"""Without a connection. The terminal goes on, and can be attached to again."""
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 8.0
_READ_BYTES = 65_536
_HINT = "Ctrl-] then d leaves; Ctrl-] twice types one; what else comes behind it is typed as it is"


class Keys:
    """Finds the keys that leave among what is typed."""

    def __init__(self) -> None:
        self._escaped = False
        self.unknown = False
        """Whether another key than those has been behind the first of them."""

    def take(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is to be passed on, and whether to leave behind that."""
        passed = bytearray()
        for byte in data:
            if self._escaped:
                self._escaped = False
                if byte == LEAVE:
                    return bytes(passed), True
                self.unknown |= byte != ESCAPE
                passed += bytes((ESCAPE,)) if byte == ESCAPE else bytes((ESCAPE, byte))
            elif byte == ESCAPE:
                self._escaped = True
            else:
                passed.append(byte)
        return bytes(passed), False


class Attachment:
    """One visit, over as many connections as it needs."""

    def __init__(self, connection: Connection, machine_id: str, terminal_id: str, after: int | None) -> None:
        self._connection = connection
        self._ids = machine_id, terminal_id
        self._keys = Keys()
        self._hinted = False
        self._screen = Screen()
        self._unsent = b""
        self._terminal: TerminalConnection | None = None
        self._over = False
        self._resized = False
        self._leaving = False
        self._news, self._bell = os.pipe()
        self.after = after
        """The offset behind what was shown here."""

    def run(self) -> bool:
        """Pass on until the user leaves (true) or the shell has ended (false). Raises APIError when it cannot go on."""
        with raw(), told_to_end(), _sizes(self._note_size):
            say(f"{self._ids[1]}: Ctrl-] then d leaves it, and it goes on")
            try:
                while not self._over:
                    if not self._open():
                        return not self._over
                    if self._pass_on():
                        return True
                return False
            finally:
                self._leaving = True
                if self._terminal is not None:
                    self._terminal.close()
                write(1, self._screen.restoring())

    def _note_size(self) -> None:
        self._resized = True
        os.write(self._bell, b"s")

    def _open(self) -> bool:
        """Connect. False when the user has left meanwhile, or the shell has ended (then it is over)."""
        delay, until = _FIRST_DELAY, monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                self._terminal = open_terminal(self._connection, *self._ids, after=self.after)
            except (APIConnectionError, APIStatusError) as error:
                if isinstance(error, ConflictError) and not error.retryable:
                    self._over = True
                    return False
                if (isinstance(error, APIStatusError) and not error.retryable) or monotonic() > until:
                    raise
            else:
                self._resized = True
                os.write(self._bell, b"s")
                Thread(target=self._show, args=[self._terminal], name="terminal", daemon=True).start()
                return True
            if self._left_within(delay):
                return False
            delay = min(delay * 2, _LONGEST_DELAY)

    def _left_within(self, seconds: float) -> bool:
        """Take what is typed while there is no connection: it is sent once there is one."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            if select.select([0], [], [], left)[0] and self._read_keys():
                return True
        return False

    def _read_keys(self) -> bool:
        data = os.read(0, _READ_BYTES)
        passed, left = self._keys.take(data)
        self._unsent += passed
        if self._keys.unknown and not self._hinted:
            self._hinted = True  # once: such keys may well be meant for the program there
            say(_HINT)
        return left or not data  # who hangs up has left

    def _pass_on(self) -> bool:
        """Serve one connection to its end. True when the user leaves."""
        terminal = self._terminal
        assert terminal is not None  # noqa: S101 - `_open` has made it
        while True:
            left = False
            ready = select.select([0, self._news], [], [])[0]
            if self._news in ready:
                news = os.read(self._news, 1)
                if news == b"e":
                    return False
            if 0 in ready:
                left = self._read_keys()
            with suppress(APIConnectionError):  # which is told by the other thread, in its place
                if self._resized:
                    self._resized = False
                    size = os.get_terminal_size(0)
                    terminal.resize(max(size.columns, 1), max(size.lines, 1))
                # What may have been sent is not sent again: better typed never than twice.
                data, self._unsent = self._unsent, b""
                terminal.send(data)
            if left:
                return True

    def _show(self, terminal: TerminalConnection) -> None:
        """Show what comes of one connection, in a thread of its own, and tell of its end."""
        try:
            while True:
                try:
                    for data in terminal:
                        write(1, data)
                        self._screen.shown(data)
                        self.after = terminal.after
                    self._over = True
                    break
                except TerminalError as error:
                    say(str(error))
        except APIConnectionError:
            if not self._leaving:
                say("the connection is lost, and is made again; Ctrl-] then d leaves")
        finally:
            os.write(self._bell, b"e")


def say(text: str) -> None:
    """Tell the user something, in raw mode."""
    print(f"\r\ndormice: {text}\r", file=sys.stderr, flush=True)


@contextmanager
def raw() -> Iterator[None]:
    """Pass every key on as it is, and show every byte as it is; put everything back at the end, whatever happens."""
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSADRAIN)  # what is typed already is kept
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _sizes(note_size: Callable[[], None]) -> Iterator[None]:
    """Hear of new sizes."""

    def resized(number: int, frame: FrameType | None) -> None:
        del number, frame
        note_size()

    before = signal.signal(signal.SIGWINCH, resized)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
