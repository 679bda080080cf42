"""Opening the file: ours, whole, and nobody else's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from dormice.flock import try_lock
from dormice.store.interface import StoreUnavailable
from dormice.store.sqlite import integrity, statements
from dormice.store.sqlite.driver import driver_errors

_ADDITIONS = tuple(map(statements.read, ("additions.sql", "workflows-schema.sql")))
# like the schema, while we may still read the code
SCHEMA_VERSION = 1
BUSY_MS = 2_000
"""How long the writer waits for another process that holds the file: a backup, somebody's shell."""
_WAL_PAGES = 4_000
"""Pages of 4 KiB in the log before what it holds is written to the file: the more, the fewer times a busy page is written there."""
APPLICATION_ID = 0x646F726D
"""`dorm`, in the header of the file: tells our file from any other."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock that says: one server per file. Raises StoreUnavailable when another one holds it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not try_lock(file):
            raise StoreUnavailable(f"another server uses this store: {path.name} is locked") from None
        yield
    finally:
        os.close(file)


def open_writer(path: Path) -> apsw.Connection:
    """Open the file for writing, made when missing. Raises StoreUnavailable when it is not one of ours."""
    # SQLite gives the -wal and -shm files the mode of the main one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    integrity.check_log(path)
    with driver_errors():
        db = _connect(path, apsw.SQLITE_OPEN_READWRITE)
    try:
        with driver_errors(db):
            db.set_busy_timeout(BUSY_MS)
            _recognize(db, path)
            _configure(db, path)
            _prepare(db)
    except BaseException:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # what is refused is left as it is
        db.close()
        raise
    return db


def open_reader(path: Path) -> apsw.Connection:
    """Open the file for reading. It may be used by one thread at a time."""
    with driver_errors():
        db = _connect(path, apsw.SQLITE_OPEN_READONLY)
        db.set_busy_timeout(200)
        db.pragma("cache_size", -4 * 1024)
    return db


def _connect(path: Path, flags: int) -> apsw.Connection:
    db = apsw.Connection(str(path), flags)
    # One plan per statement. Otherwise SQLite may plan a join anew for each binding, which costs ten times the join.
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    return db


def _recognize(db: apsw.Connection, path: Path) -> None:
    """Refuse a file that is somebody else's or was written by a newer version."""
    application, version = db.pragma("application_id"), db.pragma("user_version")
    empty = not db.pragma("schema_version")
    if not empty and application != APPLICATION_ID:
        raise StoreUnavailable(f"{path.name} is a database, but not one of Dormice")
    if version > SCHEMA_VERSION:
        raise StoreUnavailable(
            f"{path.name} was written by a newer Dormice (schema {version}, this one knows {SCHEMA_VERSION})"
        )
    if not empty and version != SCHEMA_VERSION:
        raise StoreUnavailable(f"{path.name} has schema {version}, and this Dormice knows only {SCHEMA_VERSION}")
    if not empty:
        integrity.check_file(db, path)


def _configure(db: apsw.Connection, path: Path) -> None:
    if db.pragma("journal_mode", "wal") != "wal":
        raise StoreUnavailable(f"{path.name}: this file system does not let SQLite keep a write-ahead log")
    db.pragma("synchronous", "FULL")
    db.pragma("foreign_keys", value=True)
    db.pragma("secure_delete", "FAST")
    db.pragma("temp_store", "MEMORY")
    db.pragma("wal_autocheckpoint", _WAL_PAGES)
    db.pragma("cache_size", -32 * 1024)


def _prepare(db: apsw.Connection) -> None:
    """Make the tables of a new file, and the indexes that one of an earlier release lacks."""
    db.execute("BEGIN IMMEDIATE")
    if not db.pragma("schema_version"):
        db.execute(integrity.SCHEMA)
        db.pragma("application_id", APPLICATION_ID)
        db.pragma("user_version", SCHEMA_VERSION)
    for additions in _ADDITIONS:
        db.execute(additions)
    db.execute("COMMIT")
