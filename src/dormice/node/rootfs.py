"""Makes an unpacked root file system fit to be shared by machines, whoever made it.

The tree may be hostile: a tarball decides every name and link in it. Nothing here follows a symlink, and every step
works on a directory descriptor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dormice.node.images import ImageFailure
from dormice.node.trees import empty_tree, walk

HIGHEST_ID = 65_535
"""Machines have 65,536 user ids; a file of any other owner would be nobody's."""

_MOUNT_POINTS = {"dev": 0o755, "etc": 0o755, "proc": 0o555, "root": 0o700, "run": 0o755, "sys": 0o555, "tmp": 0o1777}
_KEPT_ATTRIBUTES = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def finish_rootfs(rootfs: Path) -> None:
    """Strip what a machine must not get, add what it needs. Raises ImageFailure when the tree cannot be used."""
    _strip(rootfs)
    with _opened(rootfs) as root:
        os.fchmod(root, 0o755)
        for name, mode in _MOUNT_POINTS.items():
            _ensure_directory(name, mode, root)
        with _opened("dev", dir_fd=root) as dev:
            empty_tree(dev)
        with _opened("etc", dir_fd=root) as etc:
            for name in ("machine-id", "hostname", "resolv.conf"):
                _write(name, b"", etc)
            _write("hosts", b"127.0.0.1\tlocalhost\n", etc)


def write_inside(rootfs: Path, path: str, content: bytes) -> None:
    """Write `content` at the relative `path`, whose directories exist and are no symlinks."""
    directory, _, name = path.rpartition("/")
    with _opened(rootfs) as root:
        fd = os.dup(root)
        try:
            for part in directory.split("/"):
                below = _open_directory(part, fd)
                os.close(fd)
                fd = below
            _write(name, content, fd)
        finally:
            os.close(fd)


def _strip(rootfs: Path) -> None:
    """Remove device nodes, sockets and attributes that mean something to overlayfs; refuse foreign owners."""
    _check_owner(rootfs.lstat(), "/")
    _strip_attributes(str(rootfs))
    with _opened(rootfs) as root:
        for entry in walk(root):
            _check_owner(entry.status, f"/{entry.path}")
            mode = entry.status.st_mode
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
                os.unlink(entry.name, dir_fd=entry.directory)
            else:
                _strip_attributes(f"/proc/self/fd/{entry.directory}/{entry.name}")


def _check_owner(status: os.stat_result, path: str) -> None:
    if status.st_uid > HIGHEST_ID or status.st_gid > HIGHEST_ID:
        raise ImageFailure(f"{path} belongs to {status.st_uid}:{status.st_gid}; machines have ids up to {HIGHEST_ID}")


def _strip_attributes(path: str) -> None:
    for attribute in os.listxattr(path, follow_symlinks=False):
        kept = attribute in _KEPT_ATTRIBUTES or attribute.startswith("user.")
        if not kept or attribute.startswith("user.overlay."):
            os.removexattr(path, attribute, follow_symlinks=False)


def _ensure_directory(name: str, mode: int, root: int) -> None:
    try:
        os.mkdir(name, dir_fd=root)
    except FileExistsError:
        os.close(_open_directory(name, root))
        return
    with _opened(name, dir_fd=root) as made:
        os.fchmod(made, mode)


def _write(name: str, content: bytes, directory: int) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        raise ImageFailure(f"{name} is a directory in the image, a file is needed") from None
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=directory)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, 0o644)
        file.write(content)


def _open_directory(name: str | Path, dir_fd: int | None = None) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=dir_fd)
    except OSError as error:
        raise ImageFailure(f"/{name} must be a directory in an image: {error.strerror}") from error


@contextmanager
def _opened(name: str | Path, dir_fd: int | None = None) -> Iterator[int]:
    fd = _open_directory(name, dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)
