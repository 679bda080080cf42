"""The program behind `launcher.py`: a small single-threaded process that forks where the node, full of threads, must not.

Run by path with `python -SI` and a SOCK_SEQPACKET socket as stdin; it ends when that socket closes. It imports next to nothing
and nothing of ours, because every child is a copy of it.

Each message is one JSON object with file descriptors; the first descriptor takes the one reply. Verbs:

    {"verb": "userns", "base": 1000000, "size": 65536, "settings": {"max_user_namespaces": 0}}  ->  {} and the namespace's fd
    {"verb": "run", "cgroups": [".../cgroup.procs"], "argv": ["crun", ...]}  fds 3.. of the command  ->  {"status": 0}

An error is {"error": "..."} .
"""

import ctypes
import json
import os
import signal
import socket
import sys
from typing import Any

CLONE_NEWUSER = 0x10000000
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 4
MESSAGE_BYTES = 65536
MOST_FDS = 8

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int) -> None:
    if getattr(libc, name)(*arguments) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), name)


def write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, text.encode())
    os.close(fd)


def serve(control: socket.socket) -> None:
    """Fork a child for every message, until the node goes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    while True:
        message, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, MOST_FDS)
        if not message:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            answer(json.loads(message), fds)
            os._exit(0)
        for fd in fds:
            os.close(fd)


def answer(plan: dict[str, Any], fds: list[int]) -> None:
    reply = socket.socket(fileno=fds.pop(0))
    sent: list[int] = []
    try:
        if plan["verb"] == "userns":
            result: dict[str, Any] = {}
            sent.append(userns(plan["base"], plan["size"], plan["settings"]))
        else:
            result = {"status": run(plan["cgroups"], plan["argv"], fds)}
    except OSError as error:
        result = {"error": str(error)}
    socket.send_fds(reply, [json.dumps(result).encode()], sent)


def userns(base: int, size: int, settings: dict[str, int]) -> int:
    """A user namespace that maps 0..size to base.., held open by nothing but the returned fd.

    Whoever makes it is charged for what its processes use of inotify, timers and the like, under its own uid on the host: so a
    uid that no other machine has.
    """
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go[1])
        call("prctl", PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)  # the new ids keep root's capabilities
        os.setresgid(base, base, base)
        os.setresuid(base, base, base)
        call("unshare", CLONE_NEWUSER)
        for name, value in settings.items():
            write(f"/proc/sys/user/{name}", str(value))
        os.write(ready[1], b".")
        os.read(go[0], 1)
        os._exit(0)
    os.close(ready[1])
    try:
        if os.read(ready[0], 1) != b".":
            raise OSError(0, "no user namespace: see the limits in /proc/sys/user")
        for name in ("uid_map", "gid_map"):
            write(f"/proc/{child}/{name}", f"0 {base} {size}\n")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(go[1])
        os.waitpid(child, 0)


def run(cgroups: list[str], argv: list[str], fds: list[int]) -> int:
    """Run a command inside the cgroups, its fds from 3 on in order, and return its exit status (negative: a signal)."""
    child = os.fork()
    if child == 0:
        try:
            become(cgroups, argv, fds)
        finally:
            os._exit(126)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def become(cgroups: list[str], argv: list[str], fds: list[int]) -> None:
    for path in cgroups:
        write(path, "0")
    os.setsid()
    # Not /dev/null: the OCI runtime gives its standard streams to the machine's root, and that device is everybody's.
    source, sink = os.pipe()
    ended, unheard = os.pipe()
    os.close(sink)
    os.close(ended)
    high = [os.dup2(fd, 200 + index) for index, fd in enumerate((source, unheard, unheard, *fds))]
    for index, fd in enumerate(high):
        os.dup2(fd, index, inheritable=True)
    os.closerange(len(high), 1024)
    os.execvp(argv[0], argv)  # noqa: S606 - a program and its arguments, never a shell


if __name__ == "__main__":
    serve(socket.socket(fileno=os.dup(0)))
    sys.exit(0)
