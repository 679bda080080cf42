"""Whether a file can be trusted: looked at when it is opened, and watched while it is used.

At the start everything but the log is checked page by page, which takes some 70 ms for 100,000 executions. A page of the log is
checked when it is read. Once damage has been met, nothing more is read or written: what looks sound may be wrong as well, and
what is written may make it worse. That ends when the file has been mended and the server is started again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import apsw

from dormice.store.interface import StoreUnavailable
from dormice.store.sqlite import statements
from dormice.store.sqlite.driver import DAMAGED, ours

SCHEMA = statements.read("schema.sql")  # while we may still read the code, which may be root's alone
UNCHECKED = frozenset({"log"})
"""Holds nearly all of the bytes, and no row of it says anything of another one."""
_WAL_HEADER_BYTES = 32
_WAL_MAGIC = (0x377F0682, 0x377F0683)
_TABLES = "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite%' ORDER BY name"


class Watch:
    """Refuses the use of a store whose file is damaged, deleted or replaced."""

    def __init__(self, path: Path) -> None:
        """Begin, once the file and its write-ahead log are there."""
        self._files = [(name, _identity(name)) for name in (str(path), f"{path}-wal")]
        self._damage = ""

    def check_reading(self) -> None:
        """Raise StoreUnavailable once damage has been met. What was deleted can still be read, and is true."""
        if self._damage:
            raise StoreUnavailable(self._damage)

    def check_writing(self) -> None:
        """Raise StoreUnavailable if what is written would be lost or do harm."""
        self.check_reading()
        for name, identity in self._files:
            if _identity(name) != identity:
                file = os.path.basename(name)  # noqa: PTH119 - asked at every commit, and a Path costs more than the rest
                raise StoreUnavailable(f"the store cannot be used: {file} was deleted or replaced under the server")

    def ours(self, error: Exception, system_errno: int = 0) -> Exception:
        """Return what a driver's error is to a caller of the port (as `driver.ours`); remember damage."""
        known = ours(error, system_errno)
        if isinstance(error, DAMAGED):
            self._damage = f"{known}; mend it or restore a backup, then start the server again"
        return known


def check_log(path: Path) -> None:
    """Refuse a write-ahead log that is none: SQLite would take it for an empty one, and commits would be missing."""
    try:
        with path.with_name(f"{path.name}-wal").open("rb") as file:
            header = file.read(_WAL_HEADER_BYTES)
    except FileNotFoundError:
        return
    # Zeros, or less than a header, are what a crash leaves that came before the first commit was durable.
    if len(header) == _WAL_HEADER_BYTES and any(header) and int.from_bytes(header[:4], "big") not in _WAL_MAGIC:
        raise StoreUnavailable(f"{path.name}-wal is not a write-ahead log, and commits may be missing")


def check_file(db: apsw.Connection, path: Path) -> None:
    """Refuse a file that lacks a table or index of ours or has damaged pages. Another release may have added indexes."""
    with apsw.Connection(":memory:") as model:
        model.execute(SCHEMA)
        wanted = model.execute(_TABLES).fetchall()
    model.close()
    if lacks := set(wanted) - set(db.execute(_TABLES)):
        raise StoreUnavailable(f"{path.name} is damaged: not as it was made are {', '.join(sorted(map(_name, lacks)))}")
    for kind, name, _ in wanted:
        if kind == "table" and name not in UNCHECKED:
            says = db.execute(f"PRAGMA quick_check({name})").get
            if says != "ok":
                raise StoreUnavailable(f"{path.name} is damaged: {name}: {str(says).splitlines()[-1]}")


def _name(row: tuple[Any, ...]) -> str:
    return str(row[1])


def _identity(name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(name)  # noqa: PTH116 - likewise
    except OSError:
        return None
    return found.st_dev, found.st_ino
