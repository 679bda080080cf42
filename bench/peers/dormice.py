"""Ourselves: the server alone, without a node, and a worker that fetches its work."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

from bench.peers.driven_peer import DrivenPeer, client, worker
from bench.peers.processes import data_directory, disk_of, process
from bench.peers.workflow_peer import RunningPeer
from bench.stack import free_port


class Dormice:
    name = "Dormice"
    server = True
    fsync = "SQLite WAL, synchronous=FULL: an fsync for each group commit"
    setup = "one worker process that fetches up to 64 runs; the client starts a run and waits by a long poll"

    def install(self) -> None:
        """Nothing: it is here."""

    @contextmanager
    def running(self) -> Iterator[RunningPeer]:
        port, key = free_port(), secrets.token_urlsafe(32)
        with data_directory("dormice") as directory:
            reached = {"DORMICE_BASE_URL": f"http://127.0.0.1:{port}", "DORMICE_API_KEY": key}
            settings = reached | {
                "DORMICE_DATA_DIR": str(directory / "data"),
                "DORMICE_RUN_DIR": str(directory / "run"),
                "DORMICE_LISTEN": f"127.0.0.1:{port}",
                "DORMICE_SSH_LISTEN": "off",
                "DORMICE_LOG_LEVEL": "warning",
                "DORMICE_DRIVER": "process",
                "PATH": os.environ["PATH"],
            }
            source = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            command = [sys.executable, "-m", "dormice.cli", "server"]
            with process("server", command, directory, environment=settings | source) as server:
                server.wait_ready(lambda: bool(_answers(port, key, "/api/v1/projects")))
                with worker(sys.executable, "dormice_worker", [], directory, reached | source) as serving:
                    serving.wait_ready(lambda: b'"worker_ids":["' in _answers(port, key, "/api/v1/workers/active"))
                    with client(sys.executable, "dormice_client", [], directory, reached | source) as driven:
                        yield DrivenPeer(driven, serving, [server], lambda: disk_of(directory / "data"))


def _answers(port: int, key: str, path: str) -> bytes:
    request = Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {key}"})
    with urlopen(request, timeout=10) as answer:
        body: bytes = answer.read()
        return body
