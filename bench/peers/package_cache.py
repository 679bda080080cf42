"""Peers are installed from package registries when first needed, outside of the repository and of our own environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.workflow_peer import Unavailable

CACHE = Path("/var/tmp/dormice-bench")
INSTALL_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Packages:
    """Exact versions from PyPI, in an environment of their own, and from npm beside it."""

    name: str
    pypi: Sequence[str]
    npm: Sequence[str] = ()

    @property
    def directory(self) -> Path:
        return CACHE / self.name

    @property
    def python(self) -> str:
        return self.program("python")

    def program(self, name: str) -> str:
        return str(self.directory / "venv" / "bin" / name)

    def install(self) -> None:
        """Install them unless just these are there. Raises Unavailable."""
        installed = self.directory / "installed"
        wanted = "\n".join([*self.pypi, *self.npm])
        if installed.exists() and installed.read_text() == wanted:
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        _run([sys.executable, "-m", "venv", str(self.directory / "venv")])
        _run([self.program("pip"), "install", "--quiet", "--disable-pip-version-check", *self.pypi])
        if self.npm:
            # Their install scripts only report home.
            options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(self.directory)]
            _run(["npm", "install", *options, *self.npm])
        installed.write_text(wanted)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        raise Unavailable(f"{' '.join(command[:3])} failed: {last[0]}")
