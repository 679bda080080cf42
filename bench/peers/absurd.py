"""Absurd: stored functions in PostgreSQL, and workers that poll them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from bench.peers import postgres
from bench.peers.driven_peer import DrivenPeer, client, worker
from bench.peers.package_cache import Packages
from bench.peers.processes import data_directory
from bench.peers.workflow_peer import RunningPeer, Unavailable

VERSION = "0.5.1"
PACKAGES = Packages("absurd", pypi=[f"absurd-sdk=={VERSION}", f"absurdctl=={VERSION}"])


class Absurd:
    name = "Absurd"
    server = True
    fsync = postgres.FSYNC
    setup = (
        f"absurd-sdk {VERSION}; one worker process with two loops that claim up to 32 tasks, polling after 10 ms instead of 250 ms; "
        "its client looks for results every 10 ms for all tasks at once instead of for each after 50 ms and more"
    )

    def install(self) -> None:
        PACKAGES.install()
        postgres.install()

    @contextmanager
    def running(self) -> Iterator[RunningPeer]:
        with data_directory("absurd") as directory, postgres.postgres(directory) as database:
            for command in (["init"], ["create-queue", "bench"]):
                _control(command, database)
            with (
                worker(PACKAGES.python, "absurd_worker", [database.url], directory) as serving,
                client(PACKAGES.python, "absurd_client", [database.url], directory) as driven,
            ):
                yield DrivenPeer(driven, serving, [database.server], database.disk)


def _control(command: list[str], database: postgres.Postgres) -> None:
    program = [PACKAGES.program("absurdctl"), *command]
    done = subprocess.run(program, check=False, capture_output=True, text=True, env=os.environ | database.variables)
    if done.returncode != 0:
        raise Unavailable(f"absurdctl {command[0]}: {(done.stderr or done.stdout).strip()[-300:]}")
