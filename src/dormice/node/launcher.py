"""The node's side of `launcher_program.py`: user namespaces and waiting processes from a helper that may fork."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dormice.node.runtime import RuntimeFailure

_PROGRAM = Path(__file__).with_name("launcher_program.py")
_MESSAGE_BYTES = 65536


class Standby:
    """A process that waits inside cgroups for one command. Blocking."""

    def __init__(self, answers: socket.socket) -> None:
        self._answers = answers

    def run(self, program: int, argv: Sequence[str], netns: int, fds: Sequence[int]) -> None:
        """Run an open program in a network namespace, as a session of its own, with `fds` as its 3, 4, ... Only once.

        Returns when it has ended; nobody learns how. Raises RuntimeFailure when it could not even be tried.
        """
        try:
            socket.send_fds(self._answers, [json.dumps({"argv": list(argv)}).encode()], [netns, program, *fds])
        except BrokenPipeError:
            raise RuntimeFailure("OCI_RUNTIME_FAILED", "the waiting process died", retryable=True) from None
        self._wait()

    def _wait(self) -> None:
        if failure := self._answers.recv(_MESSAGE_BYTES):
            raise RuntimeFailure("OCI_RUNTIME_FAILED", json.loads(failure)["error"])

    def close(self) -> None:
        """Let the process end if it still waits."""
        self._answers.close()


class Launcher:
    """Starts the helper when it is first needed, and again should it die. Blocking; safe to use from several threads.

    The helper lives in the mount namespace of the thread that starts it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def userns(self, base: int, size: int, settings: Mapping[str, int]) -> int:
        """The fd of a new user namespace mapping 0..size to base.., with `/proc/sys/user` set inside. The caller closes it.

        Raises RuntimeFailure.
        """
        with self._send({"verb": "userns", "base": base, "size": size, "settings": dict(settings)}) as answers:
            _, fds = _answer(answers)
        if not fds:  # the kernel drops what there is no descriptor for
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return fds[0]

    def stand_by(self, cgroups: Sequence[Path], init: Path) -> Standby:
        """A process inside the cgroups, given by their `cgroup.procs`, that waits for a command. Raises RuntimeFailure.

        It sees these as the roots, and is itself in the child `init` of one of them.
        """
        answers = self._send({"verb": "stand_by", "cgroups": [str(path) for path in cgroups], "init": str(init)})
        try:
            _answer(answers)
        except RuntimeFailure:
            answers.close()
            raise
        return Standby(answers)

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _send(self, plan: dict[str, Any]) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._lock:
            if self._process is None or self._process.poll() is not None:
                self._drop()
                self._start()
            assert self._control is not None  # noqa: S101 - _start made it
            socket.send_fds(self._control, [json.dumps(plan).encode()], [theirs.fileno()])
        return ours

    def _start(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-SI", str(_PROGRAM)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,  # a terminal's Ctrl-C is for the node, which closes the socket when it goes
            )

    def _drop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.wait()
            self._process = None


def _answer(answers: socket.socket) -> tuple[dict[str, Any], list[int]]:
    message, fds, _, _ = socket.recv_fds(answers, _MESSAGE_BYTES, 1)
    if not message:
        raise RuntimeFailure("OCI_RUNTIME_FAILED", "the launcher died", retryable=True)
    result: dict[str, Any] = json.loads(message)
    if "error" in result:
        raise RuntimeFailure("OCI_RUNTIME_FAILED", result["error"])
    return result, fds
