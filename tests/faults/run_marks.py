"""What workers, commands and clients leave in one file: a line each, whose order is the order in which it happened, whoever wrote it.

A line is written by one write() with O_APPEND, so it is whole and in its place once the call has returned, whatever is killed
afterwards. No fsync: the host does not die here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    """What happened."""

    RAN = "ran"  # a step begins to do what it does
    DID = "did"  # and ends, or is stopped
    ACKNOWLEDGED = "acknowledged"  # the server has said that it has the step's record
    ENTERED = "entered"  # a step is in a place that few may be in at once; the detail is the place
    LEFT = "left"
    DIED = "died"  # the worker `who` was killed, and is gone
    ENDED = "ended"  # a client was told that the run has ended; the detail is how
    REPLACED = "replaced"  # a worker was given a run while it did a step of it
    STRANGE = "strange"  # an answer that no worker should get


@dataclass(frozen=True, slots=True)
class Mark:
    """One line."""

    kind: Kind
    who: str
    """Who was it: the pid of a worker and the number of its attempt, a client, a command."""
    run: str = "-"
    step: str = "-"
    detail: str = "-"


class Marks:
    """The file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def put(self, mark: Mark) -> None:
        """Add a line."""
        os.write(self._file, f"{mark.kind}\t{mark.who}\t{mark.run}\t{mark.step}\t{mark.detail}\n".encode())

    def read(self) -> list[Mark]:
        """Return all lines."""
        lines = (line.split("\t") for line in self.path.read_text().splitlines())
        return [Mark(Kind(kind), who, run, step, detail) for kind, who, run, step, detail in lines]
