"""A server of its own for `dormice demo`: a child process in a temporary directory, and nothing left of it."""

from __future__ import annotations

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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple
from urllib.request import ProxyHandler, build_opener

from dormice import lifeline
from dormice.client import Dormice
from dormice.client.socket_transport import SocketTransport
from dormice.node import image_use

READY_WITHIN = 60.0
STOPPED_WITHIN = 30.0
DESTROYED_WITHIN_MS = 30_000
SHOWN_LINES = 20
INSTANCE = "demo"
_OWN = {"DORMICE_INSTANCE": INSTANCE, "DORMICE_NETWORK": "10.214.0.0/16", "DORMICE_FIRST_UID": "1100000000"}
"""Other names, addresses and uids than those of a Dormice that may be at work on this host."""
_KEPT = {"DORMICE_GUEST", "DORMICE_NETWORK", "DORMICE_FIRST_UID"}


class DemoFailure(Exception):
    """The demo cannot go on; the message says why and what may help."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM came."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class DemoServer(NamedTuple):
    """Where it is and which key it takes."""

    base_url: str
    api_key: str

    def __repr__(self) -> str:
        return f"DemoServer({self.base_url!r})"


def end_in_good_order() -> None:
    """Make SIGINT and SIGTERM raise Interrupted, once: what is removed after the first is not left half removed."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        _ignore_signals()
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def demo_server(*, image_dir: Path, driver: str) -> Iterator[DemoServer]:
    """Start it, wait until it is ready; at the end destroy its machines, stop it and remove what it wrote.

    Raises DemoFailure.
    """
    with _alone(), _directory(image_dir if driver == "container" else None) as directory:
        log = directory / "log"
        server = DemoServer(f"http://127.0.0.1:{_free_port()}", secrets.token_urlsafe(32))
        try:
            with ExitStack() as ends:  # each of them, even if the one before failed
                if driver == "container":
                    ends.callback(_remove_names)
                child = _start(ends, log, _environment(server, directory, image_dir, driver))
                ends.callback(_destroy_machines, child, server)
                ends.callback(_ignore_signals)
                _wait_until_ready(child, server.base_url)
                yield server
        except DemoFailure as failure:
            raise DemoFailure(f"{failure}\n{_end_of(log)}") from None


def _start(ends: ExitStack, log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start `dormice up`. If this process is killed, the pipe ends and the server with it."""
    pipe, holder = os.pipe()
    ends.callback(os.close, holder)
    with log.open("wb") as log_file:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "dormice.cli", "up"],
            env={**environment, lifeline.VARIABLE: str(pipe)},
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            pass_fds=(pipe,),
            start_new_session=True,  # Ctrl-C is for the demo, which then stops the server in good order
        )
    ends.callback(_stop, child)
    os.close(pipe)
    return child


def _destroy_machines(child: subprocess.Popen[bytes], server: DemoServer) -> None:
    """Destroy what the demo did not come to destroy: a server that stops leaves its machines at work."""
    if child.poll() is not None or not _is_listening(server):
        return
    with Dormice(base_url=server.base_url, api_key=server.api_key, transport=SocketTransport()) as client:
        for machine in list(client.machines.list()):
            if machine.phase != "destroyed":
                gone = client.machines.delete(machine.machine_id, wait_ms=DESTROYED_WITHIN_MS)
                if gone.phase != "destroyed":
                    raise DemoFailure(f"the machine {machine.machine_id} is left behind: it is {gone.phase}")


def _is_listening(server: DemoServer) -> bool:
    host, _, port = server.base_url.removeprefix("http://").partition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except OSError:
        return False


def _environment(server: DemoServer, directory: Path, image_dir: Path, driver: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DORMICE_") or name in _KEPT}
    return {
        **_OWN,
        **inherited,
        "DORMICE_DATA_DIR": str(directory / "data"),
        "DORMICE_RUN_DIR": str(directory / "run"),
        "DORMICE_IMAGE_DIR": str(image_dir),
        "DORMICE_SSH_LISTEN": "off",
        "DORMICE_LISTEN": server.base_url.removeprefix("http://"),
        "DORMICE_DRIVER": driver,
        "DORMICE_API_KEY": server.api_key,
    }


@contextmanager
def _alone() -> Iterator[None]:
    """Two demos at once would share names and addresses. The name of a socket is a lock that leaves no file."""
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind("\0dormice-demo")
        except OSError:
            raise DemoFailure("another demo is running") from None
        yield


@contextmanager
def _directory(image_dir: Path | None) -> Iterator[Path]:
    """A directory for the time of the block. Where images are used (`image_dir`), its node has registered itself."""
    directory = Path(tempfile.mkdtemp(prefix="dormice-demo-"))
    directory.chmod(0o755)  # the server looks in after it has given up root
    try:
        yield directory
    finally:
        mounted = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {directory}/" in line]
        if mounted:
            raise DemoFailure(f"{directory} is left behind: something is still mounted in it")
        shutil.rmtree(directory)
        if image_dir is not None:
            image_use.forget(image_dir, directory)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_until_ready(child: subprocess.Popen[bytes], base_url: str) -> None:
    """Ask `/readyz` until it says yes, the child ends, or the time is over."""
    asker = build_opener(ProxyHandler({}))
    until = time.monotonic() + READY_WITHIN
    said = "it does not listen"
    while time.monotonic() < until:
        if child.poll() is not None:
            raise DemoFailure(f"the server ended with exit code {child.returncode}; its log:")
        try:
            with asker.open(f"{base_url}/readyz", timeout=5):
                return
        except OSError as error:  # HTTPError is one: 503 says which part is not ready
            said = error.read().decode(errors="replace") if hasattr(error, "read") else str(error)
        time.sleep(0.02)
    raise DemoFailure(f"the server is not ready after {READY_WITHIN:.0f} s: {said}; its log:")


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(STOPPED_WITHIN)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise DemoFailure(f"the server had to be killed: it did not stop within {STOPPED_WITHIN:.0f} s") from None


def _remove_names() -> None:
    """A node that stops leaves its cgroups and rules, for machines that go on. Here none does."""
    try:
        for root in (Path("/sys/fs/cgroup") / INSTANCE, *Path("/sys/fs/cgroup").glob(f"*/{INSTANCE}")):
            for directory, _, _ in os.walk(root, topdown=False):
                Path(directory).rmdir()
    except OSError as error:
        raise DemoFailure(f"something is left behind: {error}") from None
    if nft := shutil.which("nft"):
        subprocess.run([nft, "delete", "table", "inet", INSTANCE], stderr=subprocess.DEVNULL, check=False)


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
    return "\n".join(f"    {line}" for line in lines) or "    (empty)"
