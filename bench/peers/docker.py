"""A Docker Engine of the benchmark's own, spoken to over its socket: no client program is between."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.wire import BadAnswer, Connection, request

READY_SECONDS = 60.0
IMAGE = "dormice-bench"
_HEADERS = {"Host": "docker"}


@dataclass(frozen=True, slots=True)
class Docker:
    """A running engine that has the default image's root file system as an image."""

    socket: Path
    version: str

    def connect(self) -> Connection:
        return Connection(str(self.socket))

    def ask(self, connection: Connection, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return the decoded answer. Raises BadAnswer."""
        return connection.ask(_request(method, path, body)).json()

    def create_container(self, connection: Connection, command: list[str], *, attached: bool = False) -> str:
        """Make a container without network, as ours makes its machine: not started."""
        streams = {"AttachStdout": attached, "AttachStderr": attached}
        body = {"Image": IMAGE, "Cmd": command, **streams, "HostConfig": {"NetworkMode": "none", "Init": False}}
        return str(self.ask(connection, "POST", "/containers/create", body)["Id"])

    def start_container(self, connection: Connection, container: str) -> None:
        self.ask(connection, "POST", f"/containers/{container}/start")

    def remove_container(self, connection: Connection, container: str) -> None:
        self.ask(connection, "DELETE", f"/containers/{container}?force=true")

    @contextmanager
    def container(self) -> Iterator[str]:
        """A container that sleeps, for a while."""
        with self.connect() as connection:
            container = self.create_container(connection, ["sleep", "infinity"])
            try:
                self.start_container(connection, container)
                yield container
            finally:
                self.remove_container(connection, container)

    def execute(self, connection: Connection, container: str, command: list[str]) -> int:
        """Run a command to its end as `docker exec` does: create, start, read to the end, inspect. Returns the bytes read."""
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": command}
        execution = self.ask(connection, "POST", f"/containers/{container}/exec", body)["Id"]
        size = 0
        with self.connect() as stream:  # the engine ends this connection with the command
            stream.send(_request("POST", f"/exec/{execution}/start", {"Detach": False, "Tty": False}))
            status, _ = stream.head()
            if status != 200:
                raise BadAnswer(f"exec start: {status}")
            while piece := stream.stream():
                size += len(piece)
        code = self.ask(connection, "GET", f"/exec/{execution}/json")["ExitCode"]
        if code != 0:
            raise BadAnswer(f"{command} ended with {code}")
        return size

    def first_output(self, connection: Connection, container: str) -> None:
        """Start a container and return when its first output is there."""
        with self.connect() as stream:
            stream.send(_request("POST", f"/containers/{container}/attach?stream=1&stdout=1&stderr=1", None))
            stream.head()
            self.start_container(connection, container)
            if not stream.stream():
                raise BadAnswer("the container ended without output")


def _request(method: str, path: str, body: Any) -> bytes:
    encoded = b"" if body is None else json.dumps(body).encode()
    headers = _HEADERS if body is None else _HEADERS | {"Content-Type": "application/json"}
    return request(method, path, headers, encoded)


@contextmanager
def docker(rootfs: Path) -> Iterator[Docker]:
    """Start an engine in a temporary directory, import the root file system, and leave nothing of it."""
    _install()
    directory = Path(tempfile.mkdtemp(prefix="dormice-bench-docker-"))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(_command(directory), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        socket = directory / "docker.sock"
        version = _wait_ready(socket, process, directory / "log")
        _import(socket, rootfs)
        yield Docker(socket, version)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        _unmount(directory)
        shutil.rmtree(directory, ignore_errors=True)


def _install() -> None:
    if shutil.which("dockerd") is None:
        # policy-rc.d or not, there may be no init here: the benchmark starts the engine itself.
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "docker.io"]
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment, stdout=subprocess.DEVNULL)
        subprocess.run(install, check=True, env=environment, stdout=subprocess.DEVNULL)


def _command(directory: Path) -> list[str]:
    return [
        shutil.which("dockerd") or "dockerd",
        f"--host=unix://{directory}/docker.sock",
        f"--data-root={directory}/data",
        f"--exec-root={directory}/exec",
        f"--pidfile={directory}/pid",
        "--iptables=false",
        "--ip6tables=false",
        "--bridge=none",
        "--log-level=warn",
    ]


def _wait_ready(socket: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, BadAnswer), Connection(str(socket)) as connection:
            version = connection.ask(request("GET", "/version", _HEADERS)).json()
            return f"{version['Version']} ({version['KernelVersion']})"
        time.sleep(0.05)
    raise BadAnswer(f"dockerd is not ready: {log.read_text(errors='replace')[-2000:]}")


def _import(socket: Path, rootfs: Path) -> None:
    """Give the root file system to the engine as an image, by a pipe from tar."""
    curl = ["curl", "-sS", "--fail-with-body", "--unix-socket", str(socket), "-X", "POST", "-T", "-"]
    target = f"http://docker/images/create?fromSrc=-&repo={IMAGE}"
    with subprocess.Popen(["tar", "-C", str(rootfs), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run([*curl, target], stdin=tar.stdout, check=True, stdout=subprocess.DEVNULL)


def _unmount(directory: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((point for point in mounts if point.startswith(str(directory))), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False)
