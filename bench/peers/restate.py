"""Restate: a server from npm that calls the worker over HTTP/2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from bench.peers.driven_peer import DrivenPeer, client, worker
from bench.peers.package_cache import Packages
from bench.peers.processes import data_directory, disk_of, listens, process
from bench.peers.workflow_peer import RunningPeer, Unavailable
from bench.stack import free_port

SERVER = "1.7.12"
SDK = "1.2.0"
PACKAGES = Packages(
    "restate",
    pypi=[f"restate-sdk=={SDK}", "hypercorn==0.18.0", "httpx[http2]==0.28.1"],
    npm=[f"@restatedev/restate-server@{SERVER}"],
)


class Restate:
    name = "Restate"
    server = True
    fsync = "fsync of the log by group commit (rocksdb-disable-wal-fsync=false, its default)"
    setup = f"restate-server {SERVER}, one node; restate-sdk {SDK} in one Hypercorn process; each step is a ctx.run"

    def install(self) -> None:
        PACKAGES.install()

    @contextmanager
    def running(self) -> Iterator[RunningPeer]:
        ingress, admin, node, service = (free_port() for _ in range(4))
        with (
            data_directory("restate") as directory,
            process(
                "server", [_program()], directory, environment=_settings(directory, ingress, admin, node)
            ) as server,
            worker(PACKAGES.python, "restate_worker", [f"127.0.0.1:{service}"], directory) as serving,
        ):
            serving.wait_ready(lambda: listens(service))
            server.wait_ready(lambda: listens(admin) and listens(ingress) and _registers(admin, service))
            with client(PACKAGES.python, "restate_client", [f"http://127.0.0.1:{ingress}"], directory) as driven:
                yield DrivenPeer(driven, serving, [server], lambda: disk_of(directory / "data"))


def _program() -> str:
    """The server itself: what npm puts on the path is a script that starts it."""
    found = list(PACKAGES.directory.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not found:
        raise Unavailable("npm has no Restate server for this processor")
    return str(found[0])


def _settings(directory: Path, ingress: int, admin: int, node: int) -> dict[str, str]:
    return {
        "RESTATE_BASE_DIR": str(directory / "data"),
        "RESTATE_NODE_NAME": "bench",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_BIND_IP": "127.0.0.1",
        "RESTATE_BIND_PORT": str(node),
        "RESTATE_INGRESS__BIND_PORT": str(ingress),
        "RESTATE_ADMIN__BIND_PORT": str(admin),
        "RESTATE_DISABLE_TELEMETRY": "true",
    }


def _registers(admin: int, service: int) -> bool:
    """Tell the server where the worker is. Raises OSError while it cannot take it."""
    body = json.dumps({"uri": f"http://127.0.0.1:{service}"}).encode()
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(f"http://127.0.0.1:{admin}/deployments", body, headers), timeout=10) as answer:
        return int(answer.status) < 300
