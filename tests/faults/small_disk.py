"""File systems of a few MiB that a test can fill up, break and mend."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")

_BLOCK = 4096
_WITH_A_QUOTA = 4 << 30


@dataclass(frozen=True)
class SmallDisk:
    """A mounted file system. What fills it lies beside what is used."""

    mountpoint: Path

    @property
    def _filler(self) -> Path:
        return self.mountpoint / "filler"

    def fill(self, *, but: int = 0) -> None:
        """Take every block that is free, but for some; also those that are given back meanwhile."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\xff" * _BLOCK)
        if but:
            self._leave(but * _BLOCK)

    def _leave(self, size: int) -> None:
        os.truncate(self._filler, max(0, self._filler.stat().st_size - size))

    def free(self) -> None:
        """Give all of it back."""
        self._filler.unlink(missing_ok=True)

    def make_read_only(self) -> None:
        """Do what the kernel does when ext4 meets an error (`errors=remount-ro`)."""
        _run("mount", "-o", "remount,abort", str(self.mountpoint))


@dataclass(frozen=True)
class _Quota(SmallDisk):
    """A larger file system of which nobody, root included, may use more than `most` bytes (EDQUOT)."""

    most: int

    def _leave(self, size: int) -> None:
        self.allow(self.most + size)  # to give anything back takes room of its own

    def free(self) -> None:
        self.allow(self.most)
        super().free()

    def allow(self, size: int) -> None:
        _run("btrfs", "qgroup", "limit", str(size), str(self.mountpoint))


@contextmanager
def small_disk(kind: str, mountpoint: Path, mib: int) -> Iterator[SmallDisk]:
    """Mount a new `tmpfs`, or `ext4` on a loop device, or `btrfs` with a quota."""
    mountpoint.mkdir(parents=True, exist_ok=True)
    image = mountpoint.with_name(f"disk-of-{mountpoint.name}")  # a loop device may let go of it a little later
    disk = SmallDisk(mountpoint)
    if kind == "tmpfs":
        _run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(mountpoint))
    elif kind == "btrfs":
        if "btrfs" not in Path("/proc/filesystems").read_text():
            pytest.skip("this kernel has no btrfs")
        with image.open("wb") as file:
            file.truncate(_WITH_A_QUOTA)
        _run("mkfs.btrfs", "-q", str(image))
        _run("mount", "-o", "loop", str(image), str(mountpoint))
        _run("btrfs", "quota", "enable", str(mountpoint))
        disk = _Quota(mountpoint, mib << 20)
        disk.allow(disk.most)
    else:
        with image.open("wb") as file:
            file.truncate(mib << 20)
        _run("mkfs.ext4", "-q", "-m", "0", str(image))
        _run("mount", "-o", "loop", str(image), str(mountpoint))
    try:
        yield disk
    finally:
        _run("umount", str(mountpoint))
        image.unlink(missing_ok=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
