"""A real `dormice up` for tests: a process of its own on a port of its own, its data in a directory of its own."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from dormice.node.process import cgroup_name
from tests.shares import Share, share
from tests.wait import wait_until

IMAGE_DIR = Path(os.environ.get("DORMICE_TEST_IMAGE_DIR", "/var/lib/dormice/images"))
TERMINAL = {"succeeded", "failed", "cancelled", "expired"}
READY_SECONDS = 30.0
STOPPED_SECONDS = 30.0
LONGEST_WAIT_MS = 20_000


@dataclass(eq=False)
class Live:
    """A running Dormice: how to reach it, stop it, kill its parts, and start it again on the same data."""

    directory: Path
    driver: str
    instance: str
    share: Share
    extra: Mapping[str, str]
    program: tuple[str, ...] = ("dormice.cli", "up")
    """The module that is run, and its arguments."""
    api_key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """Where it listens, on the loopback."""
        return self.share.port

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """What all its processes wrote to standard error."""
        return self.directory / "log"

    def environment(self) -> dict[str, str]:
        """Return what its process is given."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DORMICE_")}
        return {
            **inherited,
            "DORMICE_DATA_DIR": str(self.data),
            "DORMICE_RUN_DIR": str(self.directory / "run"),
            "DORMICE_IMAGE_DIR": str(IMAGE_DIR),
            "DORMICE_LISTEN": f"127.0.0.1:{self.port}",
            "DORMICE_SSH_LISTEN": "off",
            "DORMICE_DRIVER": self.driver,
            "DORMICE_API_KEY": self.api_key,
            "DORMICE_INSTANCE": self.instance,
            "DORMICE_NETWORK": self.share.network,
            "DORMICE_FIRST_UID": str(self.share.first_uid),
            "DORMICE_STORAGE_RESERVE_GIB": "1",
            **self.extra,
        }

    def start(self, *, ready: bool = True) -> None:
        """Start it, and wait until it says that it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.program],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if ready:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until every part is ready."""
        with httpx.Client(base_url=self.base_url, trust_env=False) as client:
            wait_until(lambda: self._is_ready(client), READY_SECONDS, f"ready; log:\n{self.end_of_log()}")

    def _is_ready(self, client: httpx.Client) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"it has ended; log:\n{self.end_of_log()}")
        try:
            return client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """End it by SIGTERM, which must work."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOPPED_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"SIGTERM did not end it; log:\n{self.end_of_log()}") from None
        assert code == 0, f"ended with {code}; log:\n{self.end_of_log()}"

    def part(self, role: str) -> int:
        """Return the pid of the server or the node."""
        assert self.process is not None
        return wait_until(lambda: self.find_part(role), 10, f"a process of the {role}")

    def find_part(self, role: str) -> int | None:
        """Return the pid of the server or the node, if it is there just now."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in children:
            words = _read(Path(f"/proc/{pid}/cmdline")).split(b"\0")
            if words[-2:-1] == [role.encode()]:
                return int(pid)
        return None

    def kill(self, role: str) -> None:
        """Kill the server or the node as a crash would, and wait until it is gone. `up` starts it again."""
        pid = self.part(role)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.find_part(role) not in (None, pid), 30, f"another {role}")

    def kill_all(self) -> None:
        """Kill supervisor, server and node at once; only machines are left."""
        process, self.process = self.process, None
        assert process is not None
        pids = [process.pid, self.part_of(process, "server"), self.part_of(process, "node")]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids[1:]), 10, "all gone")

    def part_of(self, process: subprocess.Popen[bytes], role: str) -> int:
        """`part`, of a process that is no longer ours to tend."""
        self.process = process
        try:
            return self.part(role)
        finally:
            self.process = None

    def end_of_log(self, lines: int = 30) -> str:
        """Return the last lines of the log."""
        if not self.log.exists():
            return "(none)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def client(self, **options: Any) -> Api:
        """Return a client with the admin key."""
        headers = {"Authorization": f"Bearer {self.api_key}", **options.pop("headers", {})}
        return Api(base_url=self.base_url, headers=headers, timeout=60, trust_env=False, **options)

    def delete_machines(self, **headers: str) -> None:
        """Delete every machine of an organization through the API, and see it gone."""
        with self.client(headers=headers) as api:
            while items := api.get("/v1/machines", params={"limit": 1000}).raise_for_status().json()["items"]:
                for item in items:
                    gone = api.delete(f"/v1/machines/{item['machine_id']}", params={"wait_ms": 50_000})
                    assert gone.json()["phase"] == "destroyed", gone.text

    def processes(self) -> list[int]:
        """Return the pids of everything that belongs to it, machines and their commands included."""
        ours, cgroup = str(self.directory).encode(), f"/{self.instance}/".encode()
        return [
            int(path.name)
            for path in Path("/proc").iterdir()
            if path.name.isdigit()
            and int(path.name) != os.getpid()
            and (ours in _read(path / "cmdline") or ours in _read(path / "environ") or cgroup in _read(path / "cgroup"))
        ]

    def kill_machines(self) -> None:
        """Kill everything of every machine, as a crash of the host would. Nothing else of it may be alive."""
        assert self.process is None
        for pid in self.processes():
            with suppress(ProcessLookupError):  # it died with its process 1
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.processes(), 10, "every machine is dead")

    def abandon(self) -> None:
        """Kill what a test that failed has left, machines too: they outlive their node."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def leftovers(self) -> list[str]:
        """Return what is left of it on this host: processes, mounts, interfaces, rules, addresses, cgroups."""
        found = [f"process {pid}: {_read(Path(f'/proc/{pid}/cmdline'))!r}" for pid in self.processes()]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [f"mount {line}" for line in mounts if f"{self.directory}/" in line]
        if self.driver == "container":
            links = (link.name for link in Path("/sys/class/net").iterdir())
            found += [f"interface {name}" for name in links if name.startswith(self.instance)]
            rules = subprocess.run(["nft", "list", "table", "inet", self.instance], capture_output=True, check=False)
            found += ["packet rules"] if rules.returncode == 0 else []
            addresses = subprocess.run(["ip", "-o", "address", "show", "dev", "lo"], capture_output=True, check=False)
            found += ["address"] if f"lo:{self.instance}" in addresses.stdout.decode() else []
        names = {self.instance, cgroup_name(self.directory / "run" / "process")}
        # os.walk, unlike glob, minds nothing that others remove meanwhile.
        return [*found, *(f"cgroup {path}" for path, _, _ in os.walk("/sys/fs/cgroup") if Path(path).name in names)]


class Api(httpx.Client):
    """An HTTP client with the few requests that most tests make."""

    def create_machine(self, **body: Any) -> str:
        """Make a machine, wait until it runs, and return its id."""
        made = self.post(
            "/v1/machines",
            json={"memory_mib": 256, "storage_gib": 1, **body},
            params={"wait_ms": LONGEST_WAIT_MS},
            headers=new_key(),
        )
        record = made.raise_for_status().json()
        assert record["phase"] == "running", record
        return str(record["machine_id"])

    def execute(self, machine_id: str, *command: str, wait_ms: int = LONGEST_WAIT_MS, **body: Any) -> dict[str, Any]:
        """Run a command and return its record, as it is after `wait_ms`."""
        made = self.post(
            f"/v1/machines/{machine_id}/executions",
            json={"command": list(command), **body},
            params={"wait_ms": wait_ms},
            headers=new_key(),
        )
        assert made.status_code == 200, made.text
        record: dict[str, Any] = made.json()
        return record

    def shell(self, machine_id: str, script: str, **body: Any) -> dict[str, Any]:
        """`execute` a script of bash."""
        return self.execute(machine_id, "/bin/bash", "-c", script, **body)

    def finished(self, record: Mapping[str, Any], *, wait_ms: int = LONGEST_WAIT_MS) -> dict[str, Any]:
        """Return an execution's record once it has ended."""
        found = self.get(path_of(record), params={"wait_ms": wait_ms}).raise_for_status().json()
        assert found["status"] in TERMINAL, found
        return dict(found)

    def output(self, record: Mapping[str, Any], stream: str = "stdout") -> bytes:
        """Return the exact bytes that an execution wrote."""
        return self.get(f"{path_of(record)}/output/{stream}").raise_for_status().content

    def wait_for_output(self, record: Mapping[str, Any], text: bytes, stream: str = "stdout") -> None:
        """Wait until an execution has written `text`."""
        wait_until(lambda: text in self.output(record, stream), 20, f"{text!r} in {stream} of {record}")


def path_of(record: Mapping[str, Any]) -> str:
    """Return an execution's path."""
    return f"/v1/machines/{record['machine_id']}/executions/{record['execution_id']}"


def new_key() -> dict[str, str]:
    """Return a header with a new Idempotency-Key."""
    return {"Idempotency-Key": uuid4().hex}


@contextmanager
def running(directory: Path, driver: str, **extra: str) -> Iterator[Live]:
    """Run a Dormice for as long as the block lasts; afterwards nothing of it may be left."""
    with share() as ours, tended(Live(directory, driver, ours.instance("t"), ours, extra)) as live:
        yield live


@contextmanager
def tended(live: Live) -> Iterator[Live]:
    """Start a Dormice, and end it with everything that it has made."""
    try:
        live.start()
        yield live
        if live.process is None:
            live.start()
        live.delete_machines()
        live.stop()
    except BaseException:
        live.abandon()
        raise
    wait_until(lambda: not live.leftovers(), 10, f"nothing left, but there is {live.leftovers()}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
