"""How large a peer's SQLite file is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

BUSY_SECONDS = 30.0


def written_size(file: Path) -> int:
    """Return the bytes of a database file after what is only in its log was copied into it. The log is reused and does not grow."""
    with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return file.stat().st_size
