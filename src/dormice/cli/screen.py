"""What a program on a machine has made of the screen here, as far as it has to be undone when that program is left."""

from __future__ import annotations

import re

_OTHER_SCREEN = re.compile(rb"\x1b\[\?(?:[\d;]*;)?(?:1049|1047|47)(?:;[\d;]*)?([hl])")
_LONGEST = 32
"""Bytes of such a switch, as programs write it."""
_MODES_OFF = b"\x1b[?25h\x1b[?1l\x1b>\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\x1b[0m"
"""The cursor is shown; plain arrow keys and keypad; no bracketed paste, no reports of mouse and focus, no colours."""


class Screen:
    """Which of a terminal's two screens is shown: to leave the other one moves the cursor, so it is left only if it is shown."""

    def __init__(self) -> None:
        self._other = False
        self._tail = b""

    def shown(self, data: bytes) -> None:
        """Take note of what was written to it."""
        text = self._tail + data
        for switch in _OTHER_SCREEN.finditer(text):
            self._other = switch[1] == b"h"
        self._tail = text[-_LONGEST:]

    def restoring(self) -> bytes:
        """What puts it back into its usual state."""
        return (b"\x1b[?1049l" if self._other else b"") + _MODES_OFF
