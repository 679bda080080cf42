"""The program behind `launcher.py`: a small single-threaded process that forks where the node, full of threads, must not.

Run by path with `python -SI` and a SOCK_SEQPACKET socket as stdin; it ends when that socket closes. It imports next to nothing
and nothing of ours, because every child is a copy of it.

Each message on that socket is one JSON object with one descriptor, a socket for the answers. Verbs:

    {"verb": "userns", "base": 1000000, "size": 65536, "settings": {"max_user_namespaces": 0}}  ->  {} and the namespace's fd
    {"verb": "stand_by", "cgroups": [".../cgroup.procs"], "init": ".../init/cgroup.procs"}  ->  {} once a child is inside the
        cgroups, which it then has as the roots of a cgroup namespace, and inside the child `init` of one of them;
        then, on the same socket, {"argv": ["crun", ...]} with a network namespace to enter, an open program and its fds 3, 4, ...
        ->  nothing but the end of the socket, once the program and what it started without closing its other fds have ended

An error is {"error": "..."}.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import sys
from typing import Any, NoReturn

CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 4
MESSAGE_BYTES = 65536
MOST_FDS = 8
OPEN_FILES = 65536  # of a process inside, until it raises the limit itself
MOST_OPEN_FILES = 1048576
SAFE_FD = 64  # above every fd that a command is given

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int) -> None:
    if getattr(libc, name)(*arguments) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), name)


def write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, text.encode())
    os.close(fd)


def receive(source: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its fds, which no command inherits by accident; None when the other side has gone."""
    message, fds, _, _ = socket.recv_fds(source, MESSAGE_BYTES, MOST_FDS)
    safe = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, SAFE_FD) for fd in fds]
    for fd in fds:
        os.close(fd)
    return json.loads(message) if message else None, safe


def serve(control: socket.socket) -> None:
    """Fork a child for every message, until the node goes."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)  # not the node's: what machines run comes after it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    while True:
        plan, fds = receive(control)
        if plan is None:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            answer(plan, socket.socket(fileno=fds[0]))
            os._exit(0)
        os.close(fds[0])


def answer(plan: dict[str, Any], answers: socket.socket) -> None:
    sent: list[int] = []
    result: dict[str, Any] = {}
    try:
        if plan["verb"] == "userns":
            sent.append(userns(plan["base"], plan["size"], plan["settings"]))
        else:
            for path in plan["cgroups"]:
                write(path, "0")
            call("unshare", CLONE_NEWCGROUP)
            write(plan["init"], "0")
            standard = silence()
            bound_resources()
            answers.send(b"{}")
            command, fds = receive(answers)
            if command is None:
                return
            # Before the OCI runtime, not by it: once inside the user namespace it may no longer enter a network of the host's.
            call("setns", fds.pop(0), CLONE_NEWNET)
            program = fds.pop(0)
            answers.set_inheritable(True)
            become(program, command["argv"], [*standard, *fds])
    except OSError as error:
        result = {"error": str(error)}
    socket.send_fds(answers, [json.dumps(result).encode()], sent)


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


def silence() -> list[int]:
    """Standard streams for a command whose output nobody reads."""
    # Not /dev/null: the OCI runtime gives its standard streams to the machine's root, and that device is everybody's.
    quiet, sink = os.pipe()
    os.close(sink)
    heard, unheard = os.pipe()
    os.close(heard)
    return [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, SAFE_FD) for fd in (quiet, unheard, unheard)]


def bound_resources() -> None:
    """Set the limits of this process and of the commands that it runs."""
    # Here, because the OCI runtime may lack the capability to set them for a process in another user namespace.
    hard = min(MOST_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))
    # A host whose core_pattern is a pipe would run its handler, as root and outside, on the machine's behalf.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def become(program: int, argv: list[str], fds: list[int]) -> NoReturn:
    """Go on as another program, in a session of its own, with the fds from 0 on as given."""
    os.setsid()
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
    try:
        os.execve(program, argv, os.environ)  # noqa: S606 - a program by its descriptor, with a list of arguments
    except FileNotFoundError:  # a script, whose interpreter would not find a descriptor that is closed by the exec
        os.execve(argv[0], argv, os.environ)  # noqa: S606 - likewise, by its path


if __name__ == "__main__":
    serve(socket.socket(fileno=os.dup(0)))
    sys.exit(0)
