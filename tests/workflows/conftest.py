"""A server that needs a key, one that needs none, and workers in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dormice.workflows import Workflows
from tests.conftest import StartLive
from tests.live import Live
from tests.wait import wait_until
from tests.workflows.flows import Place

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60
LOCAL = "DORMICE_LOCAL_MODE"
StartWorker = Callable[..., "subprocess.Popen[bytes]"]


def environment(live: Live) -> dict[str, str]:
    """What a client of a server is given: a key, unless the server needs none."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DORMICE_")}
    key = {} if LOCAL in live.extra else {"DORMICE_API_KEY": live.api_key}
    return {
        **inherited,
        **key,
        "DORMICE_BASE_URL": live.base_url,
        "DORMICE_DATA_DIR": "/nonexistent",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }


def active_workers(live: Live) -> list[str]:
    """Return the ids of the workers that are given runs."""
    with live.client() as api:
        found: list[str] = api.get("/api/v1/workers/active").raise_for_status().json()["worker_ids"]
        return found


@pytest.fixture(scope="module", name="live", params=["local", "key"])
def _live(request: pytest.FixtureRequest, start_live: StartLive) -> Iterator[Live]:
    extra = {LOCAL: "true"} if request.param == "local" else {}
    with start_live("process", **extra) as live:
        yield live


@pytest.fixture(name="workflows")
def _workflows(live: Live, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workflows]:
    for name, value in environment(live).items():
        if name.startswith("DORMICE_"):
            monkeypatch.setenv(name, value)
    with Workflows() as client:
        yield client


@pytest.fixture(name="start_worker")
def _start_worker(live: Live) -> Iterator[StartWorker]:
    """Start a worker, whose standard error goes to the server's log, and wait until it is connected."""
    started: list[subprocess.Popen[bytes]] = []
    supervisors: list[subprocess.Popen[bytes]] = []

    def start(*options: str, target: str = "tests.workflows.flows", directory: Path = ROOT) -> subprocess.Popen[bytes]:
        before = set(active_workers(live))
        words = [sys.executable, "-m", "dormice.cli", "worker", target, *options]
        with live.log.open("ab") as log:
            process = subprocess.Popen(
                words, env=environment(live), cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        (supervisors if "--reload" in options else started).append(process)
        wait_until(lambda: set(active_workers(live)) - before, SECONDS, "connected")
        return process

    yield start
    for process in supervisors:  # each ends its worker
        process.terminate()
        process.wait()
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Place:
    return Place(str(tmp_path))


def marks(place: Place, name: str) -> list[int]:
    """Return the pids of the processes that left a mark, one for each time."""
    path = Path(place.directory) / name
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def wait_for_mark(place: Place, name: str, times: int = 1) -> list[int]:
    """Wait until a mark was left so many times."""
    wait_until(lambda: len(marks(place, name)) >= times, SECONDS, f"{times} marks {name}")
    return marks(place, name)


def open_up(place: Place) -> None:
    """Let go on what waits for the file `open`."""
    (Path(place.directory) / "open").touch()
