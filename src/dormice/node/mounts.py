"""The node's private mount namespace, and the mounts that make up a machine's root file system.

The namespace belongs to the runtime's own threads (and to the processes they start), not to the whole node process: it is made
afresh at every start of the node and vanishes with it, so a node killed at any moment leaves no mount behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from dormice.node import syscalls


class MountNamespace:
    """A mount namespace that threads can enter. Mounts of the host still arrive in it, none of ours leaves it."""

    def __init__(self) -> None:
        self._fd = -1
        maker = threading.Thread(target=self._make, name="mount-namespace")
        maker.start()
        maker.join()
        if self._fd < 0:
            raise PermissionError("a private mount namespace needs root")

    def _make(self) -> None:
        # A thread of its own: unshare changes the calling thread for good.
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
        except PermissionError:
            return
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
        self._fd = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def enter(self) -> None:
        """Move the calling thread in. Its working directory is its own from then on."""
        syscalls.unshare(syscalls.CLONE_FS)
        syscalls.setns(self._fd, syscalls.CLONE_NEWNS)

    def close(self) -> None:
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class MachineRoot:
    """The directories at which one machine's file systems are mounted while it is being started.

    All paths in the overlay's options are relative: they show up inside the machine, and the host's paths are nobody's business there.
    """

    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "disk"

    @property
    def image(self) -> Path:
        return self.directory / "image"

    @property
    def rootfs(self) -> Path:
        return self.directory / "rootfs"

    def make_mountpoints(self) -> None:
        for path in (self.disk, self.image, self.rootfs):
            path.mkdir(mode=0o755, exist_ok=True)

    def mount(self, disk_mount: int, image_rootfs: Path, userns: int, owner: int) -> None:
        """Assemble the root: the disk over the read-only image, both seen through the machine's own owners.

        `disk_mount` is a detached mount of the machine's disk, holding `upper` and `work`.
        """
        syscalls.mount_setattr(disk_mount, syscalls.MOUNT_ATTR_IDMAP, userns)
        syscalls.move_mount(disk_mount, self.disk)
        image_mount = syscalls.open_tree(image_rootfs)
        try:
            syscalls.mount_setattr(image_mount, syscalls.MOUNT_ATTR_IDMAP | syscalls.MOUNT_ATTR_RDONLY, userns)
            syscalls.move_mount(image_mount, self.image)
        finally:
            os.close(image_mount)
        os.chdir(self.directory)
        # The overlay writes with the ids of whoever mounted it, and host root has no place in the machine's map.
        with syscalls.fsids(owner, owner):
            layers = "lowerdir=image,upperdir=disk/upper,workdir=disk/work"
            options = "index=off,metacopy=off,redirect_dir=on,xino=auto"
            syscalls.mount("overlay", self.rootfs, "overlay", syscalls.MS_NODEV, f"{layers},{options}")
        os.chdir("/")

    def remove_mountpoints(self) -> None:
        """Remove the directories; rmdir fails rather than touch what might still be mounted on them. Raises OSError."""
        for path in (self.disk, self.image, self.rootfs):
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()

    def unmount(self) -> None:
        """Let go of the node's own view. The machine keeps its copies; without a machine the disk is released."""
        os.chdir("/")
        for path in (self.rootfs, self.image, self.disk):
            while _unmounted_one(path):
                pass


_RESOLV_CONF_MARK = "# Dormice writes this file at every start; without this line it is yours."


def furnish(disk_mount: int, hostname: str, nameserver: str) -> None:
    """Make the overlay's directories on a disk (a detached mount, owners not mapped yet) and the files a machine starts with.

    Names are written once, then they are the machine's own to edit; the nameserver may be another one with every node.
    Everything below `upper` may have been bent by the machine's root, so nothing there is followed.
    """
    resolv_conf = f"{_RESOLV_CONF_MARK}\nnameserver {nameserver}\n".encode()
    if not os.access("upper", os.F_OK, dir_fd=disk_mount):
        for directory in ("work", "upper.new", "upper.new/etc"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, mode=0o755, dir_fd=disk_mount)
        hosts = f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {hostname}\n"
        _create(disk_mount, "upper.new/etc/hostname", f"{hostname}\n".encode())
        _create(disk_mount, "upper.new/etc/hosts", hosts.encode())
        _create(disk_mount, "upper.new/etc/resolv.conf", resolv_conf)
        os.rename("upper.new", "upper", src_dir_fd=disk_mount, dst_dir_fd=disk_mount)
    else:
        with contextlib.suppress(
            OSError
        ):  # removed, replaced by something else, or the disk is full: as root inside wished
            _update_resolv_conf(disk_mount, resolv_conf)


def _create(directory_fd: int, path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode=0o644, dir_fd=directory_fd)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def _update_resolv_conf(disk_mount: int, content: bytes) -> None:
    etc = os.open("upper/etc", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=disk_mount)
    try:
        file = os.open("resolv.conf", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=etc)
    finally:
        os.close(etc)
    try:
        found = os.read(file, 4096) if stat.S_ISREG(os.fstat(file).st_mode) else b""
        if found.startswith(_RESOLV_CONF_MARK.encode()) and found != content:
            os.pwrite(file, content, 0)  # over the old content first: that needs no free block
            os.ftruncate(file, len(content))
    finally:
        os.close(file)


def _unmounted_one(path: Path) -> bool:
    # Asking the kernel to unmount is the only sure way to learn whether something is mounted: a bind of the same device looks like none.
    try:
        syscalls.umount2(path, syscalls.MNT_DETACH)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def copy_program(source: Path, directory: Path) -> Path:
    """A copy of an executable on a small file system of its own, mounted at `directory`: one that may hold programs (a host's
    /run often may not), that every machine may see, and that outlives the replacement of the source.
    """
    directory.mkdir(mode=0o755, exist_ok=True)
    attributes = syscalls.MOUNT_ATTR_NODEV
    size = source.stat().st_size + (64 << 10)
    mount = syscalls.fsmount("tmpfs", "dormice", {"size": str(size), "mode": "755"}, attributes)
    try:
        syscalls.move_mount(mount, directory)
    finally:
        os.close(mount)
    program = directory / source.name
    shutil.copyfile(source, program)
    program.chmod(0o755)
    return program


def hide(path: Path) -> None:
    """Take a mount of the host out of this namespace's sight."""
    syscalls.umount2(path, syscalls.MNT_DETACH)
