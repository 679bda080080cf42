"""Thin wrappers around the Linux calls that Python's `os` lacks, named like the calls themselves.

Each returns what the kernel returns and raises OSError with the path it was about. Nothing here decides anything.
Threads: `unshare(CLONE_FS | CLONE_NEWNS)`, `setns`, `setfsuid` and `setfsgid` act on the calling thread alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_FDCWD = -100

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_IDMAP = 0x100000

_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6

_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 4

# The same numbers on every architecture: they were given out after the tables were made one.
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_MOUNT_SETATTR = 442

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, about: str | Path = "") -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), str(about))
    return result


def _syscall(number: int, *arguments: int | bytes | None, about: str | Path = "") -> int:
    converted = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *converted), about)


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: Path | str, fstype: str, flags: int = 0, data: str = "") -> None:
    result = _libc.mount(source.encode(), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), data.encode())
    _check(result, target)


def umount2(target: Path | str, flags: int = 0) -> None:
    _check(_libc.umount2(os.fsencode(target), flags), target)


def open_tree(path: Path | str) -> int:
    """A detached copy of the mount at `path` (that mount alone, not what is mounted below it)."""
    return _syscall(_SYS_OPEN_TREE, AT_FDCWD, os.fsencode(path), _OPEN_TREE_CLONE | os.O_CLOEXEC, about=path)


def move_mount(mount_fd: int, target: Path | str) -> None:
    """Attach a detached mount at `target`."""
    _syscall(_SYS_MOVE_MOUNT, mount_fd, b"", AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH, about=target)


def mount_setattr(mount_fd: int, attributes: int, userns_fd: int = 0) -> None:
    """Set attributes of a detached mount; with MOUNT_ATTR_IDMAP, owners go through the map of `userns_fd`."""
    request = struct.pack("QQQQ", attributes, 0, 0, userns_fd)
    _syscall(_SYS_MOUNT_SETATTR, mount_fd, b"", AT_EMPTY_PATH, request, len(request), about="mount_setattr")


def fsmount(fstype: str, source: str, options: dict[str, str | None], attributes: int) -> int:
    """A new detached mount of a file system (fsopen, fsconfig, fsmount). An option without value is a flag."""
    context = _syscall(_SYS_FSOPEN, fstype.encode(), _FSOPEN_CLOEXEC, about=fstype)
    try:
        for key, value in ({"source": source} | options).items():
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            encoded = None if value is None else value.encode()
            _syscall(_SYS_FSCONFIG, context, command, key.encode(), encoded, 0, about=key)
        _syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0, about=source)
        return _syscall(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes, about=source)
    finally:
        os.close(context)


@contextlib.contextmanager
def fsids(uid: int, gid: int) -> Iterator[None]:
    """Act on files as `uid:gid` with the thread's capabilities kept; back to root afterwards. This thread only."""
    _check(_libc.prctl(_PR_SET_SECUREBITS, ctypes.c_ulong(_SECBIT_NO_SETUID_FIXUP), 0, 0, 0), "prctl")
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)


# Loop devices -------------------------------------------------------------------------------------------------------

_LOOP_SET_CAPACITY = 0x4C07
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_AUTOCLEAR = 4
_LO_FLAGS_DIRECT_IO = 16
_LOOP_INFO64 = struct.Struct("=QQQQQIIII64s64s32sQQ")
_LOOP_CONFIG = struct.Struct(f"=II{_LOOP_INFO64.size}s64x")


def loop_ctl_get_free() -> int:
    """The number of a loop device that was free a moment ago (made when there is none)."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)


def loop_configure(loop_fd: int, backing_fd: int, *, direct_io: bool) -> None:
    """Attach a file; the device lets go of it by itself when its last user closes. Raises EBUSY when it is taken."""
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_DIRECT_IO if direct_io else 0)
    info = _LOOP_INFO64.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, b"", b"", b"", 0, 0)
    fcntl.ioctl(loop_fd, _LOOP_CONFIGURE, _LOOP_CONFIG.pack(backing_fd, 4096, info))


def loop_backing_file(loop_fd: int) -> tuple[int, int]:
    """Device and inode number of the attached file. Raises ENXIO when nothing is attached."""
    info = _LOOP_INFO64.unpack(fcntl.ioctl(loop_fd, _LOOP_GET_STATUS64, bytes(_LOOP_INFO64.size)))
    return info[0], info[1]


def loop_set_capacity(loop_fd: int) -> None:
    """Take over the size of the attached file after it grew."""
    fcntl.ioctl(loop_fd, _LOOP_SET_CAPACITY)


# ext4 ---------------------------------------------------------------------------------------------------------------

_EXT4_IOC_RESIZE_FS = 0x40086610


def ext4_resize(directory_fd: int, blocks: int) -> None:
    """Grow a mounted ext4 to `blocks` file system blocks. Raises EPERM without CAP_SYS_RESOURCE."""
    fcntl.ioctl(directory_fd, _EXT4_IOC_RESIZE_FS, struct.pack("Q", blocks))
