"""A look at a store from outside, whether or not its server runs: which machines and snapshots there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dormice.domain.execution import Micros
from dormice.store.interface import StoreUnavailable
from dormice.store.sqlite import statements
from dormice.store.sqlite.connection import APPLICATION_ID, open_reader
from dormice.store.sqlite.driver import driver_errors

_SQL = statements.load("survey.sql")


@dataclass(frozen=True, slots=True)
class Survey:
    """What a store knows of."""

    live: frozenset[str]
    """The machines that are not destroyed, and the snapshots that have not failed."""
    gone: frozenset[str]
    """Those that are, or have, and are not forgotten."""
    since: Micros
    """When the store began."""


def survey(path: Path) -> Survey:
    """Look at a store. Raises StoreUnavailable, also for one that is empty."""
    db = open_reader(path)
    try:
        with driver_errors():
            if db.pragma("application_id") != APPLICATION_ID:
                raise StoreUnavailable(f"{path} is no store of Dormice")
            since = db.execute(_SQL["since"]).get
            live, gone = (db.execute(_SQL[name]).fetchall() for name in ("live", "gone"))
            if db.execute(_SQL["has_snapshots"]).get:
                live += db.execute(_SQL["snapshots"]).fetchall()
                gone += db.execute(_SQL["failed_snapshots"]).fetchall()
    finally:
        db.close()
    if since is None:
        raise StoreUnavailable(f"{path} is empty")
    return Survey(frozenset(str(one) for (one,) in live), frozenset(str(one) for (one,) in gone), since)
