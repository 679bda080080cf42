"""The directories that a process keeps its things in: made and given away, or refused in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dormice.config import SettingsError


@contextmanager
def host_errors(what: str) -> Iterator[None]:
    """Say in one line why the host does not let it begin: a full disk, a file system that cannot be written. Raises SettingsError."""
    try:
        yield
    except OSError as error:
        raise SettingsError(f"{what} cannot begin: {error}") from error


def make_directory(path: Path) -> None:
    """Make a directory of its owner's own. Raises SettingsError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot make {path}: {error}; set --data-dir") from None


def give(directory: Path, uid: int, gid: int) -> None:
    """Make the server's directory and files the server's user's own."""
    os.chown(directory, uid, gid)
    directory.chmod(0o700)
    for entry in directory.iterdir():
        os.chown(entry, uid, gid, follow_symlinks=False)
