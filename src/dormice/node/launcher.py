"""The node's side of `launcher_program.py`: processes and user namespaces from a helper that may fork."""

from __future__ import annotations

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
        _, fds = self._request({"verb": "userns", "base": base, "size": size, "settings": dict(settings)}, [])
        return fds[0]

    def run(self, argv: Sequence[str], cgroups: Sequence[Path], fds: Sequence[int]) -> int:
        """Run a command as a session of its own inside the cgroups, with `fds` as its 3, 4, ... Returns its exit status.

        Raises RuntimeFailure when it could not even be tried.
        """
        plan = {"verb": "run", "argv": list(argv), "cgroups": [str(path) for path in cgroups]}
        result, _ = self._request(plan, fds)
        return int(result["status"])

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _request(self, plan: dict[str, Any], fds: Sequence[int]) -> tuple[dict[str, Any], list[int]]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                self._send(json.dumps(plan).encode(), [theirs.fileno(), *fds])
            reply, received, _, _ = socket.recv_fds(ours, _MESSAGE_BYTES, 1)
        if not reply:
            raise RuntimeFailure("OCI_RUNTIME_FAILED", "the launcher died", retryable=True)
        result: dict[str, Any] = json.loads(reply)
        if "error" in result:
            raise RuntimeFailure("OCI_RUNTIME_FAILED", result["error"])
        return result, received

    def _send(self, message: bytes, fds: list[int]) -> None:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._drop()
                self._start()
            assert self._control is not None  # noqa: S101 - _start made it
            socket.send_fds(self._control, [message], fds)

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
