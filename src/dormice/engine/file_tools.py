"""What the guest's file tools are told and say (guest/src/tools/files.h). They run inside a machine: nothing that they say is believed."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from urllib.parse import quote_from_bytes, unquote_to_bytes

from dormice.domain.errors import Conflict, DormiceError, Invalid, NotFound, Unavailable
from dormice.domain.execution import ErrorCode
from dormice.domain.files import FileEntry, FileType
from dormice.engine.channel import ChannelEnd

_TYPES = {b"f": FileType.FILE, b"d": FileType.DIRECTORY, b"l": FileType.SYMLINK, b"o": FileType.OTHER}
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
"""Of the years 1 and 9999: RFC 3339 has no others."""
_BAD_PATHS = frozenset({errno.EINVAL, errno.ENAMETOOLONG})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_HINTS: Mapping[int, str] = {
    errno.EEXIST: "delete it first, or ask for it to be replaced",
    errno.ENOTEMPTY: "ask for it to be deleted with all that is in it (recursive)",
    errno.EXDEV: "they are on different file systems: copy it",
    errno.EISDIR: "a directory is read and written as an archive",
}


class TookTooLong(Unavailable):
    """A tool was killed because it took too long."""


def escaped(path: str) -> str:
    """Return a path as an argument of a tool. Bytes that are no UTF-8 are surrogates, as everywhere in Python."""
    return quote_from_bytes(path.encode("utf-8", "surrogateescape"), safe="/")


def entry(line: bytes) -> FileEntry:
    """Return what a line says. Raises Conflict for what no tool of ours says."""
    try:
        kind, mode, uid, gid, size, modified, name, target = line.split(b" ")
        return FileEntry(
            type=_TYPES[kind],
            mode=int(mode, 8) & 0o7777,
            uid=int(uid) & 0xFFFF_FFFF,
            gid=int(gid) & 0xFFFF_FFFF,
            size=min(max(int(size), 0), (1 << 63) - 1),
            modified_at=min(max(int(modified) // 1000, _FIRST_SECOND * 1_000_000), _LAST_SECOND * 1_000_000),
            name=unquote_to_bytes(name),
            target=unquote_to_bytes(target) if kind == b"l" else None,
        )
    except (ValueError, KeyError):
        raise nonsense() from None


def nonsense() -> Conflict:
    """What is raised when a machine says what no tool of ours would."""
    return Conflict("the machine does not answer as it should: something in it interferes with the file tools")


def failure(end: ChannelEnd, said: bytes, shown: str, *, deleted: bool) -> DormiceError:
    """Return the error that the end of a tool stands for. `said`: its line on stderr; `shown`: the path, for people.

    `deleted`: its machine is deleted, or is being.
    """
    shown = shown.encode("utf-8", "replace").decode()
    if end.exit_code is None:
        return NotFound(f"{shown}: the machine was deleted meanwhile") if deleted else _cut_off(end)
    number, _, what = said.partition(b"\n")[0].partition(b" ")
    words = "".join(filter(str.isprintable, what[:200].decode("utf-8", "replace")))
    if not number.isdigit() or len(number) > 4:
        return nonsense()
    code = int(number)
    if not code:
        refused = f"{shown}: {words}"
        archive = b"archive" in what
        return Invalid(refused, location="body") if archive else Conflict(refused)
    return _failed(code, words, shown)


def _failed(code: int, words: str, shown: str) -> DormiceError:
    text = f"{shown}: {os.strerror(code).lower()}"
    if code == errno.ENOENT:
        return NotFound(text)
    if code in _BAD_PATHS:
        return Invalid(f"{text} ({words})", location="query.path")
    details = {"errno": errno.errorcode.get(code, str(code)), "operation": words}
    if code in _FULL:
        message = f"{shown}: the machine's disk has no room for it; delete files, or let the disk grow (storage_gib)"
        return Conflict(message, code="STORAGE_EXHAUSTED", details=details)
    hint = f"; {_HINTS[code]}" if code in _HINTS else ""
    return Conflict(text + hint, details=details)


def _cut_off(end: ChannelEnd) -> DormiceError:
    if end.error_code is ErrorCode.RESOURCE_EXHAUSTED:
        return Unavailable(f"the file tool could not be started: {end.error_message}", retry_after_ms=1_000)
    if end.error_code is ErrorCode.TIMEOUT:
        return TookTooLong(f"the file tool took too long, and was {end.error_message}", retry_after_ms=1_000)
    return Unavailable(f"the file tool was cut off: {end.error_message}", retry_after_ms=1_000)
