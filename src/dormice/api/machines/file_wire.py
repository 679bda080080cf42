"""Files on the wire. Names that are no UTF-8 are shown with U+FFFD, and their bytes are beside."""

from __future__ import annotations

from base64 import b64encode

from msgspec import Struct

from dormice.api.machines.wire import Time, time
from dormice.domain.files import FileEntry, FileType


class FileRecord(Struct, omit_defaults=True, kw_only=True):
    """A file, a directory, or something else that has a name."""

    name: str
    type: FileType
    size: int
    mode: str
    """Octal, four digits."""
    uid: int
    gid: int
    modified_at: Time
    name_base64: str | None = None
    """The exact bytes of a name that is no UTF-8."""
    target: str | None = None
    """What a symbolic link says."""
    target_base64: str | None = None


class FilePage(Struct, omit_defaults=True, kw_only=True):
    """Entries of a directory, in the order of the bytes of their names."""

    items: list[FileRecord]
    next_cursor: str | None = None


def file(entry: FileEntry) -> FileRecord:
    """Return an entry's record."""
    name, name_base64 = _text(entry.name)
    target, target_base64 = (None, None) if entry.target is None else _text(entry.target)
    return FileRecord(
        name=name,
        type=entry.type,
        size=entry.size,
        mode=f"{entry.mode:04o}",
        uid=entry.uid,
        gid=entry.gid,
        modified_at=time(entry.modified_at),
        name_base64=name_base64,
        target=target,
        target_base64=target_base64,
    )


def _text(value: bytes) -> tuple[str, str | None]:
    try:
        return value.decode(), None
    except UnicodeDecodeError:
        return value.decode("utf-8", "replace"), b64encode(value).decode()
