"""Walking and removing directories that strangers have filled.

Deeper than the stack, longer than a path may be, more levels than descriptors: the walk holds one descriptor and no path,
and follows no symlink. Nobody else may move directories about meanwhile, as the way up is `..`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(NamedTuple):
    """Something in the tree. It may be removed at once."""

    directory: int
    """A descriptor of the directory that it is in, until the walk goes on."""
    name: str
    status: os.stat_result
    above: Sequence[str]
    """The names of the directories above it, until the walk goes on."""

    @property
    def path(self) -> str:
        """Where it is, from the root of the tree, for people to read."""
        return "/".join((*self.above, self.name))


@contextmanager
def opened(name: str | Path, directory: int | None = None) -> Iterator[int]:
    """Hold a directory open. Raises OSError, also for a symlink."""
    fd = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def walk(root: int) -> Iterator[Entry]:
    """Yield all that is below an open directory, each directory after what is in it. Raises OSError."""
    fd = os.dup(root)
    left, above, statuses = [os.listdir(fd)], list[str](), list[os.stat_result]()  # noqa: PTH208 - a descriptor
    try:
        while left[-1] or above:
            if not left[-1]:
                left.pop()
                fd = _change(fd, "..")
                yield Entry(fd, above.pop(), statuses.pop(), above)
                continue
            name = left[-1].pop()
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                fd = _change(fd, name)
                left.append(os.listdir(fd))  # noqa: PTH208 - a descriptor
                above.append(name)
                statuses.append(status)
            else:
                yield Entry(fd, name, status, above)
    finally:
        os.close(fd)


def empty_tree(root: int) -> None:
    """Remove all that is below an open directory. Raises OSError."""
    for entry in walk(root):
        remove = os.rmdir if stat.S_ISDIR(entry.status.st_mode) else os.unlink
        remove(entry.name, dir_fd=entry.directory)


def remove_tree(root: Path) -> None:
    """Remove a directory with all that is in it. Raises OSError."""
    with opened(root) as fd:
        empty_tree(fd)
    root.rmdir()


def _change(fd: int, name: str) -> int:
    """Go from one directory to the next."""
    there = os.open(name, _DIRECTORY, dir_fd=fd)
    os.close(fd)
    return there
