"""Deleting what has ended and was kept long enough, a piece at a time: nobody may have to wait for it.

A log may hold tens of MiB, and freeing them takes as long as reading them. So an execution is hidden first, in one step, by deleting
its request, and its log goes in pieces. A crash in between leaves a hidden rest, which the next turn goes on with.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

import apsw

from dormice.domain.execution import Micros
from dormice.store.sqlite import statements

_SQL = statements.load("retention.sql")

PIECE_BYTES = 256 * 1024
PIECE_ROWS = 400
PIECE_RECORDS = 50
"""What one turn deletes at most of output (but at least one entry of a log), of rows, and of executions or machines: a few ms."""


@dataclass(slots=True)
class _Piece:
    """What this turn has taken."""

    rows: int = 0
    size: int = 0

    def takes(self, length: int) -> bool:
        """Whether an entry of this length fits in; if so, it is in."""
        if self.rows and (self.rows >= PIECE_ROWS or self.size + length > PIECE_BYTES):
            return False
        self.rows += 1
        self.size += length
        return True


def delete_finished(db: apsw.Connection, before: Micros) -> int:
    """Delete a piece of what ended before that moment; return how many rows it took, 0 when nothing is left."""
    piece = _Piece()
    for (number,) in db.execute(_SQL["ended"], (before, PIECE_RECORDS)).fetchall():
        db.execute(_SQL["hide"], (number,))
        db.execute(_SQL["delete_secrets"], (number,))
        entries: list[tuple[int, int]] = db.execute(_SQL["entries"], (number, PIECE_ROWS + 1)).fetchall()  # type: ignore[assignment] # columns of integers
        taken = list(takewhile(lambda entry: piece.takes(entry[1]), entries))
        if taken:
            db.execute(_SQL["delete_entries"], (number, taken[-1][0]))
        if len(taken) < len(entries):
            return piece.rows
        db.execute(_SQL["delete_collection"], (number,))
        db.execute(_SQL["delete_execution"], (number,))
        piece.rows += 1
    if piece.rows:
        return piece.rows
    db.execute(_SQL["delete_previews"], (before, PIECE_ROWS))
    if previews := db.changes():
        return previews
    db.execute(_SQL["delete_ssh_sessions"], (before, PIECE_RECORDS))
    if db.changes():
        return db.changes()
    db.execute(_SQL["delete_machines"], (before, PIECE_RECORDS))
    return db.changes()
