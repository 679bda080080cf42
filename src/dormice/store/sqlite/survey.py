"""A look at a store from outside, whether or not its server runs: which machines and snapshots there are."""

from __future__ import annotations

from pathlib import Path

from dormice.domain.execution import Micros
from dormice.store.interface import StoreUnavailable
from dormice.store.sqlite import statements
from dormice.store.sqlite.connection import APPLICATION_ID, open_reader
from dormice.store.sqlite.driver import driver_errors

_SQL = statements.load("survey.sql")


def survey(path: Path) -> tuple[frozenset[str], Micros]:
    """The machines that are not destroyed, the snapshots that have not failed, and when the store began. Raises StoreUnavailable, also for one that is empty."""
    db = open_reader(path)
    try:
        with driver_errors():
            if db.pragma("application_id") != APPLICATION_ID:
                raise StoreUnavailable(f"{path} is no store of Dormice")
            since = db.execute(_SQL["since"]).get
            found = db.execute(_SQL["live"]).fetchall()
            if db.execute(_SQL["has_snapshots"]).get:
                found += db.execute(_SQL["snapshots"]).fetchall()
    finally:
        db.close()
    if since is None:
        raise StoreUnavailable(f"{path} is empty")
    return frozenset(str(identity) for (identity,) in found), since
