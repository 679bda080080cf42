"""One disk per machine: a sparse ext4 image on a loop device, so that ENOSPC, inodes and `df` are exact inside.

An image is copied from a template of its size. While it is attached, its loop device holds the very open file on which `attach`
took a lock, so the lock says whether the disk is in use: across restarts of the node, and until the kernel has written the last byte.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from dormice.domain.ids import SNAPSHOT_PREFIX
from dormice.flock import try_lock, unlock
from dormice.node import copies, freezing, syscalls
from dormice.node.copies import Copies
from dormice.node.runtime import RuntimeFailure

_log = logging.getLogger(__name__)
GIB = 1 << 30
_BLOCK = 4096
_LEAST_FREE_BYTES = 8 << 20
"""Of the host's file system, for a machine to be started at all."""
_PROBE_BYTES = 4 << 20
_STATE_OFFSET, _ERRORS = 1024 + 0x3A, 0x2
"""Where an ext4 superblock says that the kernel has met errors (Documentation/filesystems/ext4/super.rst)."""
_UNMENDED = 4
"""e2fsck(8): errors were left."""
_MOUNT_OPTIONS: dict[str, str | None] = {"discard": None, "errors": "remount-ro"}


class Disks:
    """The disks of machines, in one directory. Blocking; safe to use from several threads."""

    def __init__(self, directory: Path, *, reserve_bytes: int, pool_size: int) -> None:
        """`reserve_bytes` of the host's file system are never promised; `pool_size` disks of the last size are kept ready."""
        self._images = directory / "machines"
        self._templates = directory / "templates"
        self._pool = directory / "pool"
        self.copies = Copies(directory / "snapshots")
        self._reserve = reserve_bytes
        self._pool_size = pool_size
        self._pool_gib = 0
        self._promises = threading.Lock()
        self._unsettled: deque[Path] = deque()

    def open(self) -> None:
        """Make the directories and drop what an earlier node left half made."""
        shutil.rmtree(self._pool, ignore_errors=True)
        for directory in (self._images, self._templates, self._pool):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.copies.open()
        for leftover in (*self._templates.glob("*.new"), *self._images.glob("*.new")):
            leftover.unlink()
        self._settle_copies()

    def close(self) -> None:
        """See what was made or copied just now onto the host's disk, and drop the disks that nobody took: the next node makes its own.

        Raises OSError.
        """
        self._settle_bases()
        self._settle_copies()
        for ready in self._pool.glob("*"):
            ready.unlink()

    def create(self, machine_id: str, size_gib: int) -> None:
        """Make the machine's disk, or let an existing one grow to `size_gib`. Raises RuntimeFailure STORAGE_EXHAUSTED."""
        image = self._path(machine_id)
        with self._promises:
            held = image.stat().st_size if image.exists() else 0
            if held >= size_gib * GIB:
                return
            self._admit(size_gib * GIB - held)
            if held:
                self._growing(machine_id).touch()
                os.truncate(image, size_gib * GIB)
            else:
                self._pool_gib = size_gib
                self._take(size_gib, image)

    def take_snapshot(self, machine_id: str, snapshot_id: str) -> int:
        """Copy the disk of a machine, to which nobody writes; the bytes that takes. Raises RuntimeFailure, OSError."""
        source, base = self._path(machine_id), self.base(machine_id)
        if base is None:
            raise RuntimeFailure("DISK_NOT_FOUND", "the machine has no disk yet")
        copies.check_synced(self._unsynced(machine_id))  # half a copy is not copied further
        with self._promises:
            self._admit(copies.allocated(source))
        return self.copies.take(source, base, snapshot_id)

    def origin_of(self, origin: str) -> tuple[Path, str]:
        """The disk of a snapshot or a machine, and the version of the image that it was made on. Raises RuntimeFailure."""
        try:
            if origin.startswith(SNAPSHOT_PREFIX):
                return self.copies.disk(origin), self.copies.base(origin)
            base = self.base(origin)
            copies.check_synced(self._unsynced(origin))  # half a copy is not copied further
        except FileNotFoundError:
            base = None
        if base is None:
            raise RuntimeFailure("DISK_NOT_FOUND", f"{origin}, which the disk is to be a copy of, has none")
        return self._path(origin), base

    def has(self, machine_id: str) -> bool:
        """Whether the machine has a disk."""
        return self._path(machine_id).exists()

    def copy(self, origin: str, machine_id: str, size_gib: int) -> None:
        """Make a machine's disk as a copy of another one's, to which nobody writes; it grows to its size when it is first attached.

        It may not have reached the host's disk yet: see `settle`. Raises RuntimeFailure STORAGE_EXHAUSTED, DISK_NOT_FOUND, OSError.
        """
        source, base = self.origin_of(origin)
        target = self._path(machine_id)
        with copies.half_made(target) as new:
            with self._promises:
                self._admit(size_gib * GIB)
                with new.open("xb") as file:  # counted from now on, while it is being filled
                    file.truncate(size_gib * GIB)
            copies.copy_data(source, new)
            if (
                _superblock_size(new) < size_gib * GIB
            ):  # in memory now; the origin may never have been grown to its own size
                self._growing(machine_id).touch()
            self._write_base(machine_id, base)
            copies.mark_unsynced(self._unsynced(machine_id))
            new.rename(target)

    def settle(self, machine_id: str) -> None:
        """See a copied disk onto the host's disk. Raises OSError."""
        copies.settle_unsynced(self._unsynced(machine_id))

    @property
    def machines(self) -> Path:
        """The directory of the machines' disks, and of the files that name the versions of images under them."""
        return self._images

    def base(self, machine_id: str) -> str | None:
        """The version of the image that the disk's overlay was made on; None as long as there is no disk. Raises RuntimeFailure."""
        if not self._path(machine_id).exists():
            return None
        try:
            return copies.read_base(self._base(machine_id))
        except FileNotFoundError:
            return None

    def set_base(self, machine_id: str, version: str) -> None:
        """Remember the version, before the disk is made: an overlay means nothing on other files than its own.

        It may not have reached the host's disk before the next `refill`.
        """
        self._write_base(machine_id, version)
        self._unsettled.append(self._base(machine_id))

    def _write_base(self, machine_id: str, version: str) -> None:
        new = self._base(machine_id).with_suffix(".new")
        try:
            new.write_text(version)
            new.rename(self._base(machine_id))
        except OSError:
            new.unlink(missing_ok=True)
            raise

    def delete(self, machine_id: str) -> None:
        self._path(machine_id).unlink(missing_ok=True)
        self._base(machine_id).unlink(missing_ok=True)
        self._growing(machine_id).unlink(missing_ok=True)
        self._unsynced(machine_id).unlink(missing_ok=True)

    def attach(self, machine_id: str) -> int:
        """Attach the disk, grown to its size, and return a detached mount of it; the last mount to go detaches the disk.

        Raises RuntimeFailure STILL_RUNNING while an earlier boot still has it.
        """
        image = self._path(machine_id)
        copies.check_synced(self._unsynced(machine_id))
        fd = os.open(image, os.O_RDWR | os.O_CLOEXEC)
        try:
            if not try_lock(fd):
                raise RuntimeFailure("STILL_RUNNING", "the disk is in use by an earlier boot", retryable=True)
            host = os.fstatvfs(fd)
            if host.f_bavail * host.f_frsize < _LEAST_FREE_BYTES:
                # A file system that cannot write what it was promised is damaged by it.
                raise RuntimeFailure(
                    "STORAGE_EXHAUSTED", "the host has no room left for what machines write", retryable=True
                )
            if _has_errors(fd):
                _mend(image)
            if self._growing(machine_id).exists():
                _grow_offline(image)
                self._growing(machine_id).unlink()
            with _loop_device(fd) as device:
                return syscalls.fsmount("ext4", device, _MOUNT_OPTIONS, syscalls.MOUNT_ATTR_NODEV)
        finally:
            os.close(fd)

    def in_use(self, machine_id: str) -> bool:
        """Whether the very file in this directory is attached, whatever its path was then. Raises OSError."""
        try:
            with self._path(machine_id).open("rb") as file:
                return not try_lock(file.fileno())
        except FileNotFoundError:
            return False

    def wait_released(self, machine_id: str, timeout: float) -> bool:
        """Wait until nothing has the disk attached, then make it durable. False when it is still in use after `timeout` seconds."""
        try:
            fd = os.open(self._path(machine_id), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            deadline, pause = time.monotonic() + timeout, 0.001
            while not try_lock(fd):
                if time.monotonic() > deadline:
                    return False
                time.sleep(pause)
                pause = min(pause * 2, 0.05)
            os.fsync(fd)
        finally:
            os.close(fd)
        return True

    @contextlib.contextmanager
    def still(self, machine_id: str, mountpoint: Path) -> Iterator[None]:
        """Nothing is written to the disk in this block, and it is whole, whether or not it is attached. Raises RuntimeFailure, OSError."""
        image = self._path(machine_id)
        try:
            fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise RuntimeFailure("DISK_NOT_FOUND", f"{machine_id} has no disk to copy") from None
        try:
            if try_lock(fd):  # nobody uses it, nor can begin to
                try:
                    yield
                finally:
                    unlock(fd)
                return
            device = _device_of(image)
            if device is None:
                words = "the disk is in use, and there is no device to be found that could be held still"
                raise RuntimeFailure("SNAPSHOT_FAILED", words, retryable=True)
            with _mounted(device, mountpoint), freezing.frozen(mountpoint):
                yield
        finally:
            os.close(fd)

    def thaw(self, machine_id: str, mountpoint: Path) -> None:
        """Let a disk go on that a node which was killed may have left still. Raises OSError."""
        device = _device_of(self._path(machine_id))
        if device is not None:
            with _mounted(device, mountpoint):
                freezing.thaw(mountpoint)

    def grow_online(self, machine_id: str, mountpoint: Path) -> bool:
        """Let the file system of an attached disk take the room that `create` gave it. False if only a restart can do that."""
        image = self._path(machine_id)
        device = _device_of(image)
        if device is None:
            return False
        loop = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            syscalls.loop_set_capacity(loop)
        finally:
            os.close(loop)
        # The ioctl wants an open directory, and a detached mount has none before it is attached somewhere.
        with _mounted(device, mountpoint):
            return _resize(mountpoint, image.stat().st_size // _BLOCK)

    def refill(self) -> None:
        """Bring the pool to its size, in the size of disk that was asked for last, and see what new disks were made on onto the host's disk."""
        self._settle_bases()
        size = self._pool_gib
        if size:
            for _ in range(self._pool_size - len(list(self._pool.glob(f"{size}-*")))):
                self._copy_template(size, self._pool / f"{size}-{uuid4().hex}")

    def _settle_bases(self) -> None:
        while self._unsettled:
            copies.settle_base(self._unsettled.popleft())

    def _settle_copies(self) -> None:
        for mark in self._images.glob("*.unsynced"):
            copies.settle_unsynced(mark)

    def _path(self, machine_id: str) -> Path:
        return self._images / f"{machine_id}.ext4"

    def _base(self, machine_id: str) -> Path:
        return self._images / f"{machine_id}.base"

    def _unsynced(self, machine_id: str) -> Path:
        return self._images / f"{machine_id}.unsynced"

    def _growing(self, machine_id: str) -> Path:
        """There while the file system may be smaller than its image: what it says of itself would have to be read from the disk."""
        return self._images / f"{machine_id}.growing"

    def _admit(self, more: int) -> None:
        promised = 0
        for image in (*self._images.glob("*.ext4"), *self._images.glob(f"*{copies.HALF_MADE}")):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                stat = image.stat()
                promised += max(0, stat.st_size - stat.st_blocks * 512)
        host = os.statvfs(self._images)
        free = host.f_bavail * host.f_frsize - self._reserve - promised
        if more > free:
            message = f"{more >> 20} MiB of storage asked for, {max(0, free) >> 20} MiB left to promise"
            raise RuntimeFailure("STORAGE_EXHAUSTED", message)

    def _take(self, size_gib: int, image: Path) -> None:
        for ready in self._pool.glob(f"{size_gib}-*"):
            if ready.suffix != ".new":
                with contextlib.suppress(FileNotFoundError):
                    ready.rename(image)
                    return
        self._copy_template(size_gib, image)

    def _copy_template(self, size_gib: int, target: Path) -> None:
        template = self._template(size_gib)
        temporary = target.with_suffix(".new")
        try:
            copies.copy_data(template, temporary)
            copies.sync(temporary)
            temporary.rename(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _template(self, size_gib: int) -> Path:
        template = self._templates / f"{size_gib}gib.ext4"
        if not template.exists():
            new = self._templates / f"{uuid4().hex}.new"
            try:
                with new.open("wb") as file:
                    file.truncate(size_gib * GIB)
                _make_file_system(new)
                new.rename(template)
            except (OSError, RuntimeFailure):
                new.unlink(missing_ok=True)
                raise
        return template


def _make_file_system(image: Path) -> None:
    # mkfs knows a sparse file to be zeros: the kernel need not initialize inode tables later.
    command = ["mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(_BLOCK), "-E", "root_owner=0:0", str(image)]
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        _need_room(image)
        raise RuntimeFailure("OCI_RUNTIME_FAILED", f"mkfs.ext4 failed: {done.stderr.decode(errors='replace')[-300:]}")


def _need_room(image: Path) -> None:
    """Write on in a file that is no longer of use. Raises OSError where a program could not: it says why in words only.

    What the file system says to be free is not asked: a quota may be less.
    """
    with image.open("ab") as file:
        file.write(bytes(_PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())


def _has_errors(fd: int) -> bool:
    return bool(int.from_bytes(os.pread(fd, 2, _STATE_OFFSET), "little") & _ERRORS)


def _mend(image: Path) -> None:
    """Repair a file system that the kernel has found damaged. Raises RuntimeFailure."""
    done = subprocess.run(
        ["e2fsck", "-f", "-y", str(image)], check=False, stdin=subprocess.DEVNULL, capture_output=True
    )
    if done.returncode >= _UNMENDED:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()[-300:]
        raise RuntimeFailure("OCI_RUNTIME_FAILED", f"the disk is damaged and e2fsck cannot mend it: {said}")
    _log.warning("%s was damaged and is mended", image.name)


@contextlib.contextmanager
def _loop_device(backing_fd: int) -> Iterator[str]:
    """A loop device over the file; once a mount has it, it lives as long as the mount."""
    while True:
        device = f"/dev/loop{syscalls.loop_ctl_get_free()}"
        loop = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            _configure(loop, backing_fd)
        except BlockingIOError:
            os.close(loop)
            continue
        except OSError as error:
            os.close(loop)
            if error.errno != errno.EBUSY:  # busy: somebody else took it first
                raise
            continue
        try:
            yield device
        finally:
            os.close(loop)
        return


def _configure(loop: int, backing_fd: int) -> None:
    # Direct I/O keeps the host from caching every block twice; not every file system under us has it.
    try:
        syscalls.loop_configure(loop, backing_fd, direct_io=True)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        syscalls.loop_configure(loop, backing_fd, direct_io=False)


def _device_of(image: Path) -> str | None:
    """The loop device that an image is attached to. Not by the name it has there: a link or another mount may lead to it as well."""
    try:
        stat = image.stat()
    except FileNotFoundError:
        return None
    for attached in Path("/sys/block").glob("loop*/loop/backing_file"):
        device = f"/dev/{attached.parent.parent.name}"
        with contextlib.suppress(OSError):  # detached meanwhile
            loop = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if syscalls.loop_backing_file(loop) == (stat.st_dev, stat.st_ino):
                    return device
            finally:
                os.close(loop)
    return None


def _superblock_size(image: Path) -> int:
    """The size in bytes that the file system on the image believes to have."""
    with image.open("rb") as file:
        superblock = os.pread(file.fileno(), 1024, 1024)
    low, high = int.from_bytes(superblock[4:8], "little"), int.from_bytes(superblock[0x150:0x154], "little")
    return (high << 32 | low) * _BLOCK


def _grow_offline(image: Path) -> None:
    if _superblock_size(image) < image.stat().st_size // _BLOCK * _BLOCK:
        # e2fsck says 1 when it mended something; resize2fs wants to have seen it run, whatever it said.
        subprocess.run(["e2fsck", "-f", "-p", str(image)], check=False, stdin=subprocess.DEVNULL, capture_output=True)
        done = subprocess.run(["resize2fs", str(image)], check=False, stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-300:]
            raise RuntimeFailure("OCI_RUNTIME_FAILED", f"the disk cannot grow: {said}")


@contextlib.contextmanager
def _mounted(device: str, mountpoint: Path) -> Iterator[None]:
    """Another mount of a file system that is mounted, at a directory of this mount namespace. Raises OSError."""
    mount = syscalls.fsmount("ext4", device, {}, syscalls.MOUNT_ATTR_NODEV)
    try:
        mountpoint.mkdir(mode=0o700, exist_ok=True)
        syscalls.move_mount(mount, mountpoint)
    finally:
        os.close(mount)
    try:
        yield
    finally:
        syscalls.umount2(mountpoint, syscalls.MNT_DETACH)
        mountpoint.rmdir()


def _resize(directory: Path, blocks: int) -> bool:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.ext4_resize(opened, blocks)
    except PermissionError:  # root without CAP_SYS_RESOURCE
        return False
    finally:
        os.close(opened)
    return True
