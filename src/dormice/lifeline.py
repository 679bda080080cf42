"""A pipe that a process holds for its children: its end of file means to them that their parent is gone, however it died."""

from __future__ import annotations

import os

VARIABLE = "DORMICE_LIFELINE_FD"
"""Names the pipe's end that a child is given."""


def take() -> int | None:
    """Return the end that this process was given, None without a parent of that kind. Once: its own children do not inherit the name."""
    given = os.environ.pop(VARIABLE, None)
    return None if given is None else int(given)
