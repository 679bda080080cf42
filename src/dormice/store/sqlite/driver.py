"""The one place where the driver's errors become ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from dormice.store.interface import StoreUnavailable

DAMAGED = (apsw.CorruptError, apsw.NotADBError)

_CAUSES: dict[type[apsw.Error], str] = {
    apsw.FullError: "the disk is full",
    apsw.IOError: "reading or writing failed",
    apsw.BusyError: "the file is locked",
    apsw.LockedError: "the file is locked",
    apsw.CorruptError: "the file is corrupt",
    apsw.NotADBError: "the file is not a database",
    apsw.ReadOnlyError: "the file is read-only",
    apsw.CantOpenError: "the file cannot be opened",
    apsw.PermissionsError: "the file may not be used",
    apsw.ProtocolError: "the file is locked",
    apsw.NoMemError: "there is no memory left",
}


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Of these SQLite knows the first, and only where it writes."""


def ours(error: Exception, system_errno: int = 0) -> Exception:
    """Return what a driver's error is to a caller of the port; any other error is returned as it is.

    `system_errno` is what the system said the last time that reading or writing failed.
    """
    if isinstance(error, apsw.IOError) and system_errno in _NO_ROOM:
        return StoreUnavailable(f"the store cannot be used: the disk is full ({os.strerror(system_errno)})")
    for kind, cause in _CAUSES.items():
        if isinstance(error, kind):
            return StoreUnavailable(f"the store cannot be used: {cause} ({error})")
    if getattr(error, "extendedresult", None) == apsw.SQLITE_CONSTRAINT_FOREIGNKEY:
        return LookupError("the organization of this record does not exist")
    if isinstance(error, apsw.ConstraintError):
        return ValueError(f"a record contradicts itself or another one: {error}")
    return error


@contextmanager
def driver_errors(db: apsw.Connection | None = None) -> Iterator[None]:
    """Raise what a driver's error is to a caller of the port."""
    try:
        yield
    except apsw.Error as error:
        raise ours(error, db.system_errno if db is not None else 0) from error
