"""Deleting runs that have ended, events, traces and what sessions remember, once they were kept long enough; a piece at a time, so that nobody waits for it."""

from __future__ import annotations

import apsw

from dormice.domain.execution import Micros
from dormice.store.sqlite import statements

_SQL = statements.load("run_retention.sql")

PIECE_RUNS = 50
PIECE_ROWS = 400
"""What one turn deletes at most: a few ms."""
_PARTS = ("delete_input", "delete_result", "delete_span", "delete_commands", "delete_run")


def delete_finished_runs(db: apsw.Connection, before: Micros) -> int:
    """Delete a piece of what ended before that moment; return how many rows it took, 0 when nothing is left."""
    rows = 0
    for (number,) in db.execute(_SQL["ended"], (before, PIECE_RUNS)).fetchall():
        db.execute(_SQL["delete_steps"], (number, PIECE_ROWS))
        rows += db.changes()
        if rows >= PIECE_ROWS:  # there may be more steps: the next turn goes on with this run
            return rows
        for part in _PARTS:
            db.execute(_SQL[part], (number,))
        rows += 1
    if rows:
        return rows
    for statement in ("delete_events", "delete_memories", "delete_messages"):
        db.execute(_SQL[statement], (before, PIECE_ROWS))
        if db.changes():
            return db.changes()
    return _delete_traces(db, before)


def _delete_traces(db: apsw.Connection, before: Micros) -> int:
    rows = 0
    for (number,) in db.execute(_SQL["old_traces"], (before, PIECE_RUNS)).fetchall():
        db.execute(_SQL["delete_spans"], (number, PIECE_ROWS))
        rows += db.changes()
        if rows >= PIECE_ROWS:
            return rows
        db.execute(_SQL["delete_trace"], (number,))
        rows += 1
    return rows
