"""Starting a server that must refuse to start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SECONDS = 30
_LOGGED = b"{"


def start(directory: Path, role: str = "server", **changes: str) -> subprocess.Popen[bytes]:
    """Start a role of Dormice on the data in `directory`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DORMICE_")}
    ours = {
        "DORMICE_DATA_DIR": str(directory / "data"),
        "DORMICE_RUN_DIR": str(directory / "run"),
        "DORMICE_LISTEN": "127.0.0.1:0",
        "DORMICE_SSH_LISTEN": "off",
        "DORMICE_DRIVER": "process",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "dormice.cli", role],
        env={**inherited, **ours, **changes},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def refused(directory: Path, role: str = "server", **changes: str) -> str:
    """Return the one line that is not of the log, of a process that must end with 2."""
    with start(directory, role, **changes) as process:
        try:
            _, errors = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    said = [line for line in errors.splitlines() if not line.startswith(_LOGGED)]
    assert (process.returncode, len(said)) == (2, 1), errors.decode()
    return said[0].decode()
