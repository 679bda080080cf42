"""Directories of this host as tar archives, and archives of machines into directories of this host.

What a machine sends is not believed: nothing is written outside the directory, and nothing through a link.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

_PIECE = 1 << 20
_KEPT = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)


class BadArchive(Exception):
    """The archive holds what it should not."""


def pack(directory: Path) -> Iterator[bytes]:
    """Yield a directory as a tar archive. Raises OSError. Sockets, pipes and devices are left out."""
    for place, names, files in os.walk(os.fspath(directory), onerror=_raise):
        names.sort()
        for name in sorted([*names, *files]):
            path = os.path.join(place, name)  # noqa: PTH118 - a Path for each would cost as much as all the rest
            yield from _packed(path, os.path.relpath(path, directory))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _raise(error: OSError) -> NoReturn:
    raise error


def _packed(path: str, name: str) -> Iterator[bytes]:
    status = os.lstat(path)
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    if stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
        yield _head(info)
    elif stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)  # noqa: PTH115 - see above
        yield _head(info)
    elif stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:  # noqa: PTH123 - see above
            info.size = os.fstat(file.fileno()).st_size
            yield _head(info)
            left = info.size
            while left:
                piece = file.read(min(left, _PIECE)).ljust(min(left, _PIECE), b"\0")  # it may become shorter meanwhile
                yield piece
                left -= len(piece)
        yield bytes(-info.size % tarfile.BLOCKSIZE)


def _head(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def unpack(source: BinaryIO, directory: Path) -> None:
    """Write an archive into a directory. Raises BadArchive, OSError."""
    directory.mkdir(exist_ok=True)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with tarfile.open(fileobj=source, mode="r|", errors="surrogateescape") as archive:
            for member in archive:
                _unpacked(archive, member, root)
    except tarfile.TarError as error:
        raise BadArchive(str(error)) from error
    finally:
        os.close(root)


def _unpacked(archive: tarfile.TarFile, member: tarfile.TarInfo, root: int) -> None:
    parts = _parts(member.name)
    if ".." in parts or member.name.startswith("/") or member.type not in _KEPT:
        raise BadArchive(f"{member.name!r} is not taken: it leads out of the directory, or is a device or a pipe")
    if not parts:
        return
    above = _directory(root, parts[:-1])
    try:
        _placed(archive, member, root, above, parts[-1])
    finally:
        os.close(above)


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in {"", "."}]


def _placed(archive: tarfile.TarFile, member: tarfile.TarInfo, root: int, above: int, name: str) -> None:
    if member.isdir():
        os.close(_directory(above, [name]))
        return
    if member.islnk() and _parts(member.linkname) == _parts(member.name):
        return  # a link of a file to itself: to make it would take the file away
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=above)
    if member.issym():
        os.symlink(member.linkname, name, dir_fd=above)
    elif member.islnk():
        parts = _parts(member.linkname)
        if ".." in parts or not parts:
            raise BadArchive(f"{member.linkname!r} is not taken: it leads out of the directory")
        source = _directory(root, parts[:-1])
        try:
            os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=above, follow_symlinks=False)
        finally:
            os.close(source)
    else:
        content = archive.extractfile(member)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(name, flags, member.mode & 0o777, dir_fd=above), "wb") as file:
            while content is not None and (piece := content.read(_PIECE)):
                file.write(piece)
            os.utime(file.fileno(), (member.mtime, member.mtime))


def _directory(root: int, parts: list[str]) -> int:
    """Open a directory below `root`, made if it is missing, and never through a link."""
    found = os.dup(root)
    for part in parts:
        with suppress(FileExistsError):
            os.mkdir(part, dir_fd=found)
        below = -1
        try:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=found)
        finally:
            os.close(found)
        found = below
    return found
