"""Files inside machines, as callers see them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dormice.domain.execution import Micros


class FileType(StrEnum):
    """What a name in a directory stands for."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"
    """A device, a pipe or a socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One name in a directory. Names may hold any byte but `/` and NUL."""

    name: bytes
    type: FileType
    size: int
    """Bytes; of a symbolic link, those of its target."""
    mode: int
    """The twelve lowest bits."""
    uid: int
    gid: int
    modified_at: Micros
    target: bytes | None = None
    """What a symbolic link says."""
