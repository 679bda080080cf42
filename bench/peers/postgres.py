"""A PostgreSQL cluster of a peer's own, from Debian's packages: on a unix socket in a temporary directory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers.processes import Child, disk_of, process
from bench.peers.workflow_peer import Unavailable

USER = "postgres"
DATABASE = "bench"
FSYNC = "fsync of PostgreSQL's log at every commit (fsync=on, synchronous_commit=on)"


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running cluster with one empty database."""

    directory: Path
    server: Child

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@/{DATABASE}?host={self.directory}"

    @property
    def variables(self) -> dict[str, str]:
        """What PostgreSQL's own programs, and those that run them, want to know."""
        return {"PGHOST": str(self.directory), "PGUSER": USER, "PGDATABASE": DATABASE}

    def disk(self) -> int:
        """Return the bytes allocated to tables and indexes, all of them written. The log is recycled and does not grow with them."""
        self._sql("CHECKPOINT", DATABASE)
        return disk_of(self.directory / "data" / "base")

    def _sql(self, statement: str, database: str) -> None:
        command = [_program("psql"), "--quiet", "--no-psqlrc", "--dbname", database, "--command", statement]
        subprocess.run(
            command, check=True, capture_output=True, env=os.environ | {**self.variables, "PGDATABASE": database}
        )

    def create_database(self) -> None:
        self._sql(f"CREATE DATABASE {DATABASE}", "postgres")


def install() -> None:
    """Have the server's programs. Raises Unavailable."""
    if _programs() is None:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "postgresql"]):
            done = subprocess.run(["apt-get", *command], check=False, capture_output=True, text=True, env=environment)
            if done.returncode != 0:
                raise Unavailable(f"apt-get {command[0]}: {done.stderr.strip()[-300:]}")


def version() -> str:
    """Return "PostgreSQL 15.14" or the like."""
    said = subprocess.run([_program("postgres"), "--version"], check=True, capture_output=True, text=True).stdout
    return f"PostgreSQL {said.split()[2]}"


@contextmanager
def postgres(parent: Path) -> Iterator[Postgres]:
    """Make a cluster in a directory of its own and run it with Debian's settings. Raises Unavailable."""
    directory = parent / "postgres"
    directory.mkdir(mode=0o755)
    shutil.chown(directory, USER, USER)
    data = directory / "data"
    made = subprocess.run(
        [_program("initdb"), "--auth=trust", "--no-locale", "--encoding=UTF8", f"--username={USER}", str(data)],
        check=False,
        capture_output=True,
        text=True,
        user=USER,
        group=USER,
        extra_groups=(),
        cwd=directory,
    )
    if made.returncode != 0:
        raise Unavailable(f"initdb: {made.stderr.strip()[-300:]}")
    options = ["-D", str(data), "-k", str(directory), "-c", "listen_addresses="]
    server = process("postgres", [_program("postgres"), *options], directory, user=USER, stop=signal.SIGINT)
    with server as child:
        cluster = Postgres(directory, child)
        child.wait_ready(lambda: (directory / ".s.PGSQL.5432").exists() and _accepts(directory))
        cluster.create_database()
        yield cluster


def _accepts(directory: Path) -> bool:
    command = [_program("pg_isready"), "--quiet", f"--host={directory}"]
    return subprocess.run(command, check=False).returncode == 0


def _program(name: str) -> str:
    if (programs := _programs()) is None:
        raise Unavailable("PostgreSQL's server is not installed")
    return str(programs / name)


def _programs() -> Path | None:
    """The newest version of Debian's."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return max((path.parent for path in found), key=lambda path: int(path.parent.name), default=None)
