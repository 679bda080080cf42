"""Prefect: a server that is told of every state, and flows that run in their client's process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

from bench.peers.driven_peer import DrivenPeer, client
from bench.peers.package_cache import Packages
from bench.peers.processes import data_directory, disk_of, process
from bench.peers.sqlite_file import written_size
from bench.peers.workflow_peer import RunningPeer
from bench.stack import free_port

VERSION = "3.9.1"
PACKAGES = Packages("prefect", pypi=[f"prefect=={VERSION}"])


class Prefect:
    name = "Prefect"
    server = False
    fsync = "no fsync at commit (SQLite with journal_mode=WAL and synchronous=NORMAL, as it sets them); results are files without fsync"
    setup = (
        f"prefect {VERSION}, its server with one SQLite file; results of tasks are kept; flows run in the client's process, because "
        "its workers start a process for every run"
    )

    def install(self) -> None:
        PACKAGES.install()

    @contextmanager
    def running(self) -> Iterator[RunningPeer]:
        port = free_port()
        api = f"http://127.0.0.1:{port}/api"
        with data_directory("prefect") as directory:
            data = directory / "data"
            data.mkdir()
            settings = {
                "PREFECT_HOME": str(data),
                "PREFECT_API_URL": api,
                "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_LOGGING_LEVEL": "WARNING",
                "PREFECT_LOGGING_TO_API_ENABLED": "false",
            }
            options = ["--host", "127.0.0.1", "--port", str(port), "--no-ui"]
            command = [PACKAGES.program("prefect"), "server", "start", *options]
            with process("server", command, directory, environment=settings) as server:
                server.wait_ready(lambda: _healthy(api))
                with client(PACKAGES.python, "prefect_client", [], directory, settings) as driven:
                    yield DrivenPeer(
                        driven, driven, [server], lambda: written_size(data / "prefect.db") + disk_of(data / "storage")
                    )


def _healthy(api: str) -> bool:
    """Whether the server answers. Raises OSError while it does not."""
    with urlopen(f"{api}/health", timeout=5) as answer:
        return int(answer.status) == 200
