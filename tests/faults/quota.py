"""A user's quota of the disk that the store is on, used up and raised as a test wants it.

A kernel that can tell files and users apart for quotas is not to be had everywhere: the answer of the kernel is given by a library
(quota.c) that the processes are started with.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_name("quota.c")


@dataclass(frozen=True)
class Quota:
    """Fills and frees as a SmallDisk does."""

    mountpoint: Path
    """Where the store is."""
    place: Path
    """A directory that every user may look into."""

    @property
    def environment(self) -> dict[str, str]:
        """Return what processes are started with to which it applies."""
        library = self.place / "quota.so"
        if not library.exists():
            command = [
                "gcc",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-O1",
                "-shared",
                "-fPIC",
                "-o",
                str(library),
                str(_SOURCE),
            ]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        return {"LD_PRELOAD": str(library), "QUOTA_USED_UP": str(self._used_up)}

    @property
    def _used_up(self) -> Path:
        return self.place / "quota-used-up"

    def fill(self) -> None:
        """Use all of it up."""
        self._used_up.touch()

    def free(self) -> None:
        """Raise it."""
        self._used_up.unlink(missing_ok=True)
