"""(14) What the calls of the foreign SDK's worker cost the server."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from bench.figures import Result
from bench.peers.processes import REPOSITORY, listens, process, ran
from bench.peers.programs.steps import STEPS
from bench.stack import Stack, stack
from bench.wire import BadAnswer, request
from bench.workbench import Workbench
from dormice.node import syscalls

TITLE = "(14) the worker of polos-sdk 0.1.15"
PYTHON = REPOSITORY / ".sdks" / "polos-0.1.15" / "bin" / "python"
PORT = 8000
ENDED_SECONDS = 180.0
_OURS = ("/api/v1/workflows/batch_run", "/api/v1/queues", "/metrics")
"""Routes that only this benchmark asks for."""
_REQUESTS = re.compile(
    r'^dormice_http_requests_total\{(?=.*method="(\w+)")(?=.*route="([^"]*)").*\} ([0-9.e+]+)$', re.MULTILINE
)
Calls = Counter[str]
"""How often each route was asked for, by method and path."""


@dataclass(frozen=True, slots=True)
class Took:
    """What some runs of a workflow took: seconds of the server's processor time, and the calls of their worker."""

    cpu: float
    calls: Calls


def run(bench: Workbench) -> Result:
    result = Result("foreign-worker", TITLE)
    if not PYTHON.exists():
        result.notes.append("the SDK is not there: `make sdks` installs it")
        return result
    count = bench.amount(300, 100)
    with _own_network(), _server() as served:
        project = str(uuid4())
        with _worker(served, project):
            for workflow in ("plain", "three_steps"):
                _runs(served, project, workflow, 20)
            rounds = bench.amount(3, 1)
            took = {
                name: [_runs(served, project, name, count) for _ in range(rounds)] for name in ("plain", "three_steps")
            }
    result.section("processor time of the server, what it sends itself included")
    for name, rows in took.items():
        each = result.add(f"{name}: per call", "ms", [1000 * row.cpu / row.calls.total() for row in rows])
        result.add(f"{name}: per run", "ms", [1000 * row.cpu / count for row in rows])
        result.bound(f"ms of processor time per call: {name}", each.median, 1, unit="ms")
    plain, steps = (rows[-1].calls for rows in took.values())
    result.section("calls")
    result.add("per run without steps", "", [plain.total() / count])
    result.add("per step", "", [(steps.total() - plain.total()) / count / len(STEPS)])
    for route, calls in sorted(steps.items()):
        result.notes.append(f"three_steps: {calls / count:.2f} of {route} per run")
    return result


def _server() -> AbstractContextManager[Stack]:
    """One that needs no key, with the line that each request has in the log by default."""
    return stack("polos", driver="process", DORMICE_LOCAL_MODE="true", DORMICE_LOG_LEVEL="info")


def _runs(served: Stack, project: str, workflow: str, count: int) -> Took:
    """Have a workflow run so often, and wait for all of them."""
    server = served.processes()["server"]
    calls, cpu = _calls(served), ran(server)
    body = {"workflows": [{"workflow_id": workflow, "payload": None}] * count}
    _ask(served, project, "POST", "/api/v1/workflows/batch_run", json.dumps(body).encode())
    deadline = time.monotonic() + ENDED_SECONDS
    while _open(served, project, workflow):
        if time.monotonic() > deadline:
            raise BadAnswer(f"{count} runs of {workflow} have not ended after {ENDED_SECONDS:.0f} s")
        time.sleep(0.1)
    return Took(ran(server) - cpu, _calls(served) - calls)


def _open(served: Stack, project: str, workflow: str) -> int:
    """Return how many runs of a workflow have not ended."""
    queues = json.loads(_ask(served, project, "GET", "/api/v1/queues"))["queues"]
    return sum(queue["queued"] + queue["running"] + queue["waiting"] for queue in queues if queue["name"] == workflow)


def _calls(served: Stack) -> Calls:
    """Return what the server has counted, without what is ours."""
    with served.connect() as connection:
        text = connection.ask(served.request("GET", "/metrics")).body.decode()
    calls: Calls = Counter()
    for method, route, number in _REQUESTS.findall(text):
        if route not in _OURS:
            calls[f"{method} {route}"] += int(float(number))
    return calls


def _ask(served: Stack, project: str, method: str, path: str, body: bytes = b"") -> bytes:
    """Ask as a program of this host does in local mode, without a key."""
    headers = {"Host": "localhost", "X-Project-ID": project, "Content-Type": "application/json"}
    with served.connect() as connection:
        answer = connection.ask(request(method, path, headers, body))
    answer.json()
    return answer.body


@contextmanager
def _worker(served: Stack, project: str) -> Iterator[None]:
    settings = {
        "POLOS_API_URL": f"http://127.0.0.1:{served.address[1]}",
        "POLOS_PROJECT_ID": project,
        "POLOS_LOCAL_MODE": "true",
    }
    command = [str(PYTHON), "-m", "bench.peers.programs.polos_worker"]
    with process("worker", command, served.directory, environment=settings) as child:
        child.wait_ready(lambda: listens(PORT))  # it has registered before that
        yield


@contextmanager
def _own_network() -> Iterator[None]:
    """Be in a network with nothing but a loopback, with all that is started meanwhile: somebody else may have the worker's port."""
    with Path("/proc/thread-self/ns/net").open() as before:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            syscalls.setns(before.fileno(), syscalls.CLONE_NEWNET)
