"""The program behind `launcher.py`: a small single-threaded process that forks where the node, full of threads, must not.

Run by path with `python -SI` and a SOCK_SEQPACKET socket as stdin; it ends when that socket closes. It imports next to nothing
and nothing of ours, because every child is a copy of it.

Each message on that socket is one JSON object with one descriptor, a socket for the answers. Verbs:

    {"verb": "userns", "base": 1000000, "size": 65536, "settings": {"max_user_namespaces": 0}}  ->  {} and the namespace's fd
    {"verb": "stand_by", "cgroups": [".../cgroup.procs"]}  ->  {} once a child is inside the cgroups;
        then, on the same socket, {"argv": ["crun", ...]} with a network namespace to enter and the fds 3, 4, ... of that
        command  ->  {"status": 0}

An error is {"error": "..."}.
"""

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import sys
from typing import Any

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
            answers.send(b"{}")
            command, fds = receive(answers)
            if command is None:
                return
            # Before the OCI runtime, not by it: once inside the user namespace it may no longer enter a network of the host's.
            call("setns", fds.pop(0), CLONE_NEWNET)
            result["status"] = run(command["argv"], fds)
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


def run(argv: list[str], fds: list[int]) -> int:
    """Run a command in a session of its own, its fds from 3 on as given, and return its exit status (negative: a signal)."""
    # Not /dev/null: the OCI runtime gives its standard streams to the machine's root, and that device is everybody's.
    silence, sink = os.pipe()
    os.close(sink)
    heard, unheard = os.pipe()
    os.close(heard)
    standard = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, SAFE_FD) for fd in (silence, unheard, unheard)]
    actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate([*standard, *fds])]
    # Here, because the OCI runtime may lack the capability to set them for a process in another user namespace.
    hard = min(MOST_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))
    # A host whose core_pattern is a pipe would run its handler, as root and outside, on the machine's behalf.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    child = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsid=True)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    serve(socket.socket(fileno=os.dup(0)))
    sys.exit(0)
