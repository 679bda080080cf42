"""A look at a store from outside, whether or not its server runs: which machines there are."""

from __future__ import annotations

from pathlib import Path

from dormice.domain.execution import Micros
from dormice.store.interface import StoreUnavailable
from dormice.store.sqlite import statements
from dormice.store.sqlite.connection import APPLICATION_ID, open_reader
from dormice.store.sqlite.driver import driver_errors

_SQL = statements.load("survey.sql")


def survey(path: Path) -> tuple[frozenset[str], Micros]:
    """The machines that are not destroyed, and when the store began. Raises StoreUnavailable, also for one that is empty."""
    db = open_reader(path)
    try:
        with driver_errors():
            if db.pragma("application_id") != APPLICATION_ID:
                raise StoreUnavailable(f"{path} is no store of Dormice")
            since = db.execute(_SQL["since"]).get
            live = frozenset(str(machine_id) for (machine_id,) in db.execute(_SQL["live"]))
    finally:
        db.close()
    if since is None:
        raise StoreUnavailable(f"{path} is empty")
    return live, since
