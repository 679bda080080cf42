"""Copies of machines' disks: snapshots, which nothing changes, and disks that begin as a copy of another.

    <directory>/snapshots/<snapshot id>.ext4    a snapshot, complete
    <directory>/snapshots/<snapshot id>.base    the version of the image that it was made on
    <directory>/<where>/<id>.copy.new           a copy under way; the next node drops it
    <directory>/machines/<id>.unsynced          the disk's copy is whole, but may not have reached the host's disk yet; names the host's boot

Only what holds data is copied. A copy has its name only once it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from dormice.node.runtime import RuntimeFailure

_log = logging.getLogger(__name__)
_HOST_BOOT = Path("/proc/sys/kernel/random/boot_id")
HALF_MADE = ".copy.new"


class Copies:
    """The directory of snapshots, and how disks are copied. Blocking; the caller sees to it that nobody writes to what is copied."""

    def __init__(self, snapshots: Path) -> None:
        self.directory = snapshots

    def open(self) -> None:
        """Make the directory and drop what an earlier node left half made."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in self.directory.glob("*.new"):
            leftover.unlink()
        for base in self.directory.glob("*.base"):
            if not base.with_suffix(".ext4").exists():
                base.unlink()

    def size(self, snapshot_id: str) -> int | None:
        """The bytes that a snapshot takes up; None if there is no such snapshot."""
        try:
            return allocated(self.disk(snapshot_id))
        except FileNotFoundError:
            return None

    def take(self, source: Path, base: str, snapshot_id: str) -> int:
        """Copy a disk; the bytes that the snapshot takes up. It is on the host's disk when this returns. Raises OSError."""
        target = self.disk(snapshot_id)
        with contextlib.ExitStack() as failed:
            failed.callback(self.delete, snapshot_id)
            self._base(snapshot_id).write_text(base)
            sync(self._base(snapshot_id))
            with half_made(target) as new:
                copy_data(source, new)
                sync(new)
                new.rename(target)
            sync(self.directory)
            failed.pop_all()
        return allocated(target)

    def delete(self, snapshot_id: str) -> None:
        """Delete a snapshot, also one half made. One that is gone is no error."""
        self.disk(snapshot_id).unlink(missing_ok=True)
        self._base(snapshot_id).unlink(missing_ok=True)

    def disk(self, snapshot_id: str) -> Path:
        return self.directory / f"{snapshot_id}.ext4"

    def base(self, snapshot_id: str) -> str:
        """The version of the image that it was made on. Raises RuntimeFailure, OSError."""
        return read_base(self._base(snapshot_id))

    def _base(self, snapshot_id: str) -> Path:
        return self.directory / f"{snapshot_id}.base"


@contextlib.contextmanager
def half_made(target: Path) -> Iterator[Path]:
    """Where a copy is made that becomes `target`; it goes if it did not."""
    new = target.with_suffix(HALF_MADE)
    try:
        yield new
    finally:
        new.unlink(missing_ok=True)


def allocated(file: Path) -> int:
    """The bytes that a file takes up."""
    return file.stat().st_blocks * 512


def copy_data(source: Path, target: Path) -> None:
    """Copy the parts of a sparse file that hold data into a new one, which may already be longer. Raises OSError."""
    with source.open("rb") as reading, target.open("r+b" if target.exists() else "xb") as writing:
        target.chmod(0o600)
        end = os.fstat(reading.fileno()).st_size
        if os.fstat(writing.fileno()).st_size < end:
            os.ftruncate(writing.fileno(), end)
        for start, stop in _data(reading.fileno(), end):
            offset = start
            while offset < stop:
                copied = os.copy_file_range(reading.fileno(), writing.fileno(), stop - offset, offset, offset)
                if not copied:
                    raise OSError(errno.EIO, "the disk became shorter while it was copied", str(source))
                offset += copied


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    offset = 0
    while offset < size:
        try:
            offset = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole follows
                return
            raise
        end = os.lseek(fd, offset, os.SEEK_HOLE)
        yield offset, end
        offset = end


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, reach the host's disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_base(base: Path) -> str:
    """The version of the image that a disk was made on. Raises RuntimeFailure for one that the host lost power over, and OSError."""
    version = base.read_text()
    if not version:
        raise RuntimeFailure(
            "DISK_LOST",
            f"the host went down before {base.name} was on its disk: the disk can no longer be used, delete it",
        )
    return version


def settle_base(base: Path) -> None:
    """See the file that names the version of the image, and the names beside it, onto the host's disk. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):  # destroyed meanwhile
        sync(base)
        sync(base.parent)


def mark_unsynced(mark: Path) -> None:
    """Say that a disk may not have reached the host's disk; before it has its name."""
    mark.write_text(_HOST_BOOT.read_text())


def settle_unsynced(mark: Path) -> None:
    """See a disk onto the host's disk, then drop its mark; one of before the host's last boot keeps it. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):  # settled, or destroyed meanwhile
        if mark.read_text() == _HOST_BOOT.read_text():
            sync(mark.with_suffix(".ext4"))
            settle_base(mark.with_suffix(".base"))
            mark.unlink()


def check_synced(mark: Path) -> None:
    """Raises RuntimeFailure for a disk that the host lost power over."""
    try:
        boot = mark.read_text()
    except FileNotFoundError:
        return
    if boot != _HOST_BOOT.read_text():
        raise RuntimeFailure(
            "DISK_LOST", "the host went down before the copy was on its disk: delete the machine, and fork again"
        )
