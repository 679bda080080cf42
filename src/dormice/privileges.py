"""How the server gives up root: everything imported and bound first, then a private view of its directory, then the uid."""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import pwd
import resource
import stat
import sys
from pathlib import Path

from dormice.node import syscalls

_PR_SET_NO_NEW_PRIVS = 38
_FALLBACK_USER = "nobody"
_NICE = -10


def account(name: str, *, default: str) -> tuple[int, int]:
    """Return uid and gid of a user; of `nobody` when the default one is missing. Raises LookupError for any other."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        if name != default:
            raise
        entry = pwd.getpwnam(_FALLBACK_USER)
    return entry.pw_uid, entry.pw_gid


def take_precedence() -> None:
    """Have this process run before what machines run: a host full of their work must not make everybody wait for us.

    Where the kernel groups processes by session, the group's own priority is what counts. Left as it is where that is not allowed.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        Path("/proc/self/autogroup").write_text(str(_NICE))


def take_descriptors() -> None:
    """Have as many open files as the host allows: the customary 1,024 are not enough for many clients or machines."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def private_view(directory: Path, mount_point: Path) -> Path:
    """Show `directory` at `mount_point` to this process only, and return where to use it.

    The data directory may be closed to the server's user; what is bound here stays reachable all the same.
    """
    mount_point.mkdir(parents=True, exist_ok=True)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount(str(directory), mount_point, "", syscalls.MS_BIND)
    _open_up({Path(place) for place in (*sys.path, sys.prefix, sys.base_prefix) if place} | {mount_point})
    return mount_point


def _open_up(places: set[Path]) -> None:
    """Make directories reachable for everybody in this mount namespace: a clone in /root is code that the server's user cannot reach, and
    libraries load some of theirs late. What else is in a closed directory is not to be seen there any more.
    """
    closed: dict[Path, list[Path]] = {}
    for place in sorted(places):
        above = reversed(place.parents)
        if place.is_dir() and (first := next((one for one in above if not one.stat().st_mode & stat.S_IXOTH), None)):
            closed.setdefault(first, []).append(place)
    for directory, inside in closed.items():
        held = [(place, os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) for place in inside]
        syscalls.mount("dormice", directory, "tmpfs", syscalls.MS_NODEV, "mode=755,size=1m")
        before = os.umask(0o022)
        for place, fd in held:
            place.mkdir(parents=True, exist_ok=True)
            syscalls.mount(f"/proc/self/fd/{fd}", place, "", syscalls.MS_BIND | syscalls.MS_REC)
            os.close(fd)
        os.umask(before)


def drop(uid: int, gid: int) -> None:
    """Become the user for good: no groups, no capabilities, none by a later exec either."""
    groups = [entry.gr_gid for entry in grp.getgrall() if entry.gr_gid == gid]
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
