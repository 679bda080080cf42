"""Where what belongs to a running machine lies."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from dormice.node.mounts import MachineRoot


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of one machine below the run directory. The outer one can be passed through, the inner one is root's."""

    directory: Path

    @property
    def private(self) -> Path:
        return self.directory / "private"

    @property
    def socket(self) -> Path:
        return self.private / "guest.sock"

    @property
    def record(self) -> Path:
        return self.private / "record.json"

    @property
    def still(self) -> Path:
        """There while the machine's disk is held still."""
        return self.private / "still.mark"

    @property
    def log(self) -> Path:
        return self.private / "oci.log"

    @property
    def root(self) -> MachineRoot:
        return MachineRoot(self.directory)

    def make(self) -> None:
        self.directory.mkdir(mode=0o711, exist_ok=True)
        self.private.mkdir(mode=0o700, exist_ok=True)
        self.root.make_mountpoints()

    def remove(self) -> None:
        self.root.remove_mountpoints()
        shutil.rmtree(self.private, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            self.directory.rmdir()
