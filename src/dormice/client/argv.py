"""What a command may be given as."""

from __future__ import annotations

from collections.abc import Sequence


def as_argv(command: Sequence[str]) -> list[str]:
    """The command as a list. Raises TypeError for one string, which would be taken apart into its letters."""
    if isinstance(command, str | bytes | bytearray):
        raise TypeError(
            'a command is a sequence of strings, such as ["uname", "-a"], not one '
            f'{type(command).__name__}; for a shell: ["sh", "-c", "..."]'
        )
    return list(command)
