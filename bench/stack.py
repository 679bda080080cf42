"""A Dormice of the benchmark's own: server and node in a temporary directory, with names, addresses and uids of their own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.wire import BadAnswer, Connection, request

IMAGE_DIR = Path("/var/lib/dormice/images")
READY_SECONDS = 60.0
NAMES = ("main", "cold", "keep", "idle", "few", "many", "polos")
"""Every stack of the suite: several of them are up at once."""
WAIT_MS = 55_000
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stack:
    """A running server and node, and how to reach them."""

    address: tuple[str, int]
    key: str
    directory: Path
    supervisor: int

    def connect(self) -> Connection:
        return Connection(self.address)

    def request(self, method: str, path: str, body: Record | None = None) -> bytes:
        """Return a request; a POST has an Idempotency-Key of its own."""
        headers = {"Host": "bench", "Authorization": f"Bearer {self.key}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if method != "GET":
            headers["Idempotency-Key"] = secrets.token_hex(16)
        return request(method, path, headers, b"" if body is None else json.dumps(body).encode())

    def create_machine(self, connection: Connection, **spec: Any) -> str:
        """Make a machine and wait until it runs. Raises BadAnswer."""
        body = {"vcpu": 2, "memory_mib": 1024, "storage_gib": 1, "autosleep": "never"} | spec
        made = connection.ask(self.request("POST", f"/v1/machines?wait_ms={WAIT_MS}", body)).json()
        if made["phase"] != "running":
            raise BadAnswer(f"the machine is {made['phase']}: {made['status']}")
        return str(made["machine_id"])

    def delete_machine(self, connection: Connection, machine_id: str) -> None:
        connection.ask(self.request("DELETE", f"/v1/machines/{machine_id}?wait_ms={WAIT_MS}")).json()

    @contextmanager
    def machine(self, **spec: Any) -> Iterator[str]:
        """A machine for a while."""
        with self.connect() as connection:
            machine_id = self.create_machine(connection, **spec)
            try:
                yield machine_id
            finally:
                self.delete_machine(connection, machine_id)

    def execute(self, connection: Connection, machine_id: str, argv: list[str], wait_ms: int = WAIT_MS) -> Record:
        """Run a command and return its record. Raises BadAnswer."""
        path = f"/v1/machines/{machine_id}/executions?wait_ms={wait_ms}"
        record: Record = connection.ask(self.request("POST", path, {"command": argv})).json()
        return record

    def finish(self, connection: Connection, machine_id: str, argv: list[str]) -> Record:
        """Run a command to its end, however long it takes. Raises BadAnswer if it does not succeed."""
        record = self.execute(connection, machine_id, argv)
        while record["status"] in ("wake_in_progress", "queued", "running"):
            path = f"/v1/machines/{machine_id}/executions/{record['execution_id']}?wait_ms={WAIT_MS}"
            record = connection.ask(self.request("GET", path)).json()
        if record["status"] != "succeeded":
            raise BadAnswer(f"{argv}: {record}")
        return record

    def processes(self) -> dict[str, int]:
        """Return the pids of server and node."""
        found = {}
        for pid in _children(self.supervisor):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            found[arguments[-1].decode()] = pid
        return {role: found[role] for role in ("server", "node")}

    def guests(self) -> list[int]:
        """Return the pids of all process 1 of this stack's machines."""
        run = self.directory / "run"
        return [int(file.read_text()) for file in run.glob("dm-*/private/pid")]


@contextmanager
def stack(name: str, *, driver: str = "container", data_dir: Path | None = None, **settings: str) -> Iterator[Stack]:
    """Start one, wait until it is ready, and leave nothing of it. `name` is one of NAMES.

    `settings` are DORMICE_ variables. A `data_dir` that is given is left where it is.
    """
    with _directory(name) as directory, _alone(name):
        address = ("127.0.0.1", free_port())
        key = secrets.token_urlsafe(32)
        network, first_uid = _ranges(name)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DORMICE_") or k == "DORMICE_GUEST"} | {
            "DORMICE_INSTANCE": f"bn{name}",
            "DORMICE_NETWORK": network,
            "DORMICE_FIRST_UID": str(first_uid),
            "DORMICE_DATA_DIR": str(data_dir or directory / "data"),
            "DORMICE_RUN_DIR": str(directory / "run"),
            "DORMICE_IMAGE_DIR": str(IMAGE_DIR),
            "DORMICE_SSH_LISTEN": "off",
            "DORMICE_LISTEN": f"{address[0]}:{address[1]}",
            "DORMICE_API_KEY": key,
            "DORMICE_DRIVER": driver,
            "DORMICE_LOG_LEVEL": "warning",
            **settings,
        }
        log = directory / "log"
        with log.open("wb") as file:
            command = [sys.executable, "-m", "dormice.cli", "up"]
            child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        try:
            _wait_ready(address, child, log)
            yield Stack(address, key, directory, child.pid)
        finally:
            _remove_machines(address, key)
            child.send_signal(signal.SIGTERM)
            child.wait(90)


@contextmanager
def _directory(name: str) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix=f"dormice-bench-{name}-"))
    directory.chmod(0o711)  # machines' roots must pass through
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """One of this name on this host: its network and uids are its own. Raises BadAnswer."""
    with socket.socket(socket.AF_UNIX) as claim:
        try:
            claim.bind(f"\0dormice-bench-{name}")
        except OSError:
            raise BadAnswer("another run of the benchmarks is under way") from None
        yield


def _ranges(name: str) -> tuple[str, int]:
    """Return a network and a first uid of the name's own."""
    number = NAMES.index(name)
    return f"10.{224 + number}.0.0/16", 1_300_000_000 + (number << 26)


def _wait_ready(address: tuple[str, int], child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError, BadAnswer), Connection(address) as connection:
            if connection.ask(request("GET", "/readyz", {"Host": "bench"})).status == 200:
                return
        time.sleep(0.02)
    raise BadAnswer(f"the server is not ready: {log.read_text(errors='replace')[-2000:]}")


def _remove_machines(address: tuple[str, int], key: str) -> None:
    """Destroy what a benchmark that failed has left: machines outlive their node."""
    reach = Stack(address, key, Path(), 0)
    with contextlib.suppress(OSError, BadAnswer), Connection(address) as connection:
        while items := connection.ask(reach.request("GET", "/v1/machines?limit=100")).json()["items"]:
            for machine in items:
                reach.delete_machine(connection, machine["machine_id"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
