"""Running the distribution's own tools (mmdebstrap, skopeo, umoci), with their lines shown as they come."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from dormice.node.images import DEFAULT_PATH, ImageFailure, Progress

_PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")
_TAIL = 10


def run_tool(command: Sequence[str], progress: Progress, *, cwd: Path | None = None) -> None:
    """Run `command` to its end. Raises ImageFailure with its last lines when it fails or is not installed.

    It sees no environment but the path, the locale and the host's proxies; temporary files go to `cwd`.
    """
    environment = {key: value for key, value in os.environ.items() if key.lower() in _PROXY_VARIABLES}
    environment |= {"PATH": DEFAULT_PATH, "LC_ALL": "C.UTF-8", "TMPDIR": str(cwd or "/tmp")}  # noqa: S108 - the default
    tail: list[str] = []
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
            errors="replace",
        )
    except FileNotFoundError:
        raise ImageFailure(f"{command[0]} is not installed (Debian package {command[0]})") from None
    with process:
        for line in process.stdout or ():
            tail = [*tail[1 - _TAIL :], line.rstrip()]
            progress(line.rstrip())
    if process.returncode != 0:
        raise ImageFailure("\n".join([f"{_name(command)} failed with status {process.returncode}:", *tail]))


def _name(command: Sequence[str]) -> str:
    """What is run behind a wrapper that ends with `--`."""
    return command[command.index("--") + 1] if "--" in command else command[0]
