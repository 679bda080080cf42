"""DBOS: a library that keeps its journal in SQLite or in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.peers import postgres
from bench.peers.driven_peer import DrivenPeer, client
from bench.peers.package_cache import Packages
from bench.peers.processes import data_directory
from bench.peers.sqlite_file import written_size
from bench.peers.workflow_peer import RunningPeer

VERSION = "3.4.0"
PACKAGES = Packages("dbos", pypi=[f"dbos=={VERSION}"])
SETUP = f"dbos {VERSION}; workflows are started in the client's own process, not by a queue: no poll is waited for"


class DbosOnSqlite:
    name = "DBOS on SQLite"
    server = False
    fsync = "fsync of SQLite's rollback journal and file at every commit (its defaults: journal_mode=delete, synchronous=FULL)"
    setup = SETUP

    def install(self) -> None:
        PACKAGES.install()

    @contextmanager
    def running(self) -> Iterator[RunningPeer]:
        with data_directory("dbos") as directory:
            file = directory / "data" / "dbos.sqlite"
            file.parent.mkdir()
            with client(PACKAGES.python, "dbos_program", [f"sqlite:///{file}"], directory) as driven:
                yield DrivenPeer(driven, driven, [], lambda: written_size(file))


class DbosOnPostgres:
    name = "DBOS on PostgreSQL"
    server = False
    fsync = postgres.FSYNC
    setup = SETUP

    def install(self) -> None:
        PACKAGES.install()
        postgres.install()

    @contextmanager
    def running(self) -> Iterator[RunningPeer]:
        with (
            data_directory("dbos") as directory,
            postgres.postgres(directory) as database,
            client(PACKAGES.python, "dbos_program", [database.url], directory) as driven,
        ):
            yield DrivenPeer(driven, driven, [database.server], database.disk)
