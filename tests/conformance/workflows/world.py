"""One Dormice in local mode, workers and a client of the foreign SDK, all in a network of their own.

Every Python worker of that SDK listens on port 8000, whatever it is told, so that two of them cannot share a network.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from dormice.node import syscalls
from tests.conformance.workflows import marks
from tests.live import Live
from tests.wait import wait_until

ROOT = Path(__file__).resolve().parents[3]
PYTHON = ROOT / ".sdks" / "polos-0.1.15" / "bin" / "python"
PACKAGE = "tests.conformance.workflows"
WORKER_URL = "http://127.0.0.1:8000"
LLM_PORT = 8001
TERMINAL = {"completed", "failed", "cancelled"}
STARTED_SECONDS = 30
ENDED_SECONDS = 30
ANSWER_SECONDS = 70


@contextmanager
def own_network() -> Iterator[None]:
    """Move this thread, and the processes that it starts, into a network that has a loopback and nothing else.

    The kernel removes it with the last process in it.
    """
    with Path("/proc/thread-self/ns/net").open() as before:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            syscalls.setns(before.fileno(), syscalls.CLONE_NEWNET)


class Refused(Exception):
    """The SDK's client raised."""

    def __init__(self, name: str, message: str, trace: str) -> None:
        super().__init__(f"{name}: {message}\n{trace}")
        self.name = name
        self.message = message


class Client:
    """A process with the SDK's client in it, asked over its standard input."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, name: str, **arguments: Any) -> Any:
        """Call one of the functions of `run_client`. Raises Refused if the SDK raised."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([name, arguments]) + "\n")
        self.process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(ANSWER_SECONDS), f"no answer to {name}"
        answer = json.loads(self.process.stdout.readline() or '{"raised": "EOF", "message": "", "trace": "see log"}')
        if "raised" in answer:
            raise Refused(answer["raised"], answer["message"], answer["trace"])
        return answer["value"]

    def run(self, workflow: str, payload: Any = None, **options: Any) -> Any:
        """Run a workflow to its end, as the SDK does it."""
        return self("run", workflow=workflow, payload=payload, **options)

    def start(self, workflow: str, payload: Any = None, **options: Any) -> str:
        """Submit a workflow and return the id of its run."""
        return str(self("invoke", workflow=workflow, payload=payload, **options)["id"])


@dataclass(eq=False)
class World:
    """What a test needs: the server, what it tells over HTTP, the SDK's processes, and the diary of the workflows."""

    live: Live
    directory: Path
    modules: Sequence[str] = ("flows",)
    project: str = field(default_factory=lambda: str(uuid4()))
    processes: list[subprocess.Popen[Any]] = field(default_factory=list)

    def environment(self, **more: str) -> dict[str, str]:
        """Return what the SDK's processes are given."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "POLOS_API_URL": self.live.base_url,
            "POLOS_PROJECT_ID": self.project,
            "POLOS_LOCAL_MODE": "true",
            "OPENAI_API_KEY": "none",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{LLM_PORT}/v1",
            marks.PLACE: str(self.directory),
            **more,
        }

    def _start(self, program: str, *arguments: str, log: str, pipes: int | None, **environment: str) -> Any:
        with (self.directory / log).open("ab") as file:
            process = subprocess.Popen(
                [PYTHON, "-m", f"{PACKAGE}.{program}", *arguments],
                cwd=self.directory,
                env=self.environment(**environment),
                stdin=pipes or subprocess.DEVNULL,
                stdout=pipes or file,
                stderr=file,
                text=True,
            )
        self.processes.append(process)
        return process

    def start_client(self) -> Client:
        """Start a process with the SDK's client."""
        return Client(self._start("run_client", *self.modules, log="client.log", pipes=subprocess.PIPE))

    def spawn_worker(self, **environment: str) -> subprocess.Popen[str]:
        """Start a worker."""
        started: subprocess.Popen[str] = self._start(
            "run_worker", *self.modules, log="worker.log", pipes=None, **environment
        )
        return started

    def start_worker(self, **environment: str) -> subprocess.Popen[str]:
        """Start a worker, and wait until it listens: it has registered before that."""
        process = self.spawn_worker(**environment)
        wait_until(lambda: self._listens(process), STARTED_SECONDS, "a worker that listens")
        return process

    def _listens(self, process: subprocess.Popen[str]) -> bool:
        assert process.poll() is None, f"the worker has ended; log:\n{self.end_of_log('worker.log')}"
        try:
            return httpx.get(f"{WORKER_URL}/health", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def start_llm(self) -> None:
        """Start the stub of a language model."""
        with (self.directory / "llm.log").open("ab") as file:
            program = [sys.executable, "-m", f"{PACKAGE}.run_llm", str(LLM_PORT)]
            process = subprocess.Popen(
                program, cwd=ROOT, env=self.environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        self.processes.append(process)
        wait_until(self._model_answers, STARTED_SECONDS, "the stub of a model")

    def _model_answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{LLM_PORT}/", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def end(self, process: subprocess.Popen[Any], how: int = signal.SIGTERM) -> None:
        """End a process that this world has started."""
        if process.poll() is None:
            process.send_signal(how)
        process.wait(ENDED_SECONDS)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        self.processes.remove(process)

    def end_all(self) -> None:
        """End whatever is still there."""
        for process in list(self.processes):
            self.end(process, signal.SIGKILL)

    def end_of_log(self, name: str, lines: int = 30) -> str:
        """Return the last lines of what a process of the SDK wrote."""
        return "\n".join((self.directory / name).read_text(errors="replace").splitlines()[-lines:])

    def http(self) -> httpx.Client:
        """Return a client for what the SDK's own client does not ask."""
        headers = {"X-Project-ID": self.project}
        # Without TLS there is nothing to verify, and to load certificates takes longer than a request.
        return httpx.Client(base_url=self.live.base_url, headers=headers, timeout=60, trust_env=False, verify=False)

    def execution(self, run: str) -> dict[str, Any]:
        """Return a run's record."""
        with self.http() as http:
            found: dict[str, Any] = http.get(f"/api/v1/executions/{run}").raise_for_status().json()
        return found

    def in_status(self, run: str, *wanted: str, seconds: float = 20) -> dict[str, Any]:
        """Wait until a run is in one of some states, and return its record."""
        url = f"/api/v1/executions/{run}"
        record: dict[str, Any] = {}
        with self.http() as http:

            def reached() -> bool:
                record.update(http.get(url).raise_for_status().json())
                return record["status"] in wanted

            try:
                wait_until(reached, seconds, f"{run} in {wanted}")
            except AssertionError as late:
                raise AssertionError(f"{late}; it is {record}; worker:\n{self.end_of_log('worker.log')}") from None
        return record

    def ended(self, run: str, *, seconds: float = 20) -> dict[str, Any]:
        """Wait until a run has ended, and return its record."""
        return self.in_status(run, *TERMINAL, seconds=seconds)

    def step(self, run: str, key: str) -> dict[str, Any] | None:
        """Return what is stored of a step, as the worker asks for it."""
        with self.http() as http:
            found = http.get(f"/internal/executions/{run}/steps/{key}")
        record: dict[str, Any] | None = None if found.status_code == 404 else found.raise_for_status().json()
        return record

    def notes(self, what: str | None = None, **said: Any) -> list[dict[str, Any]]:
        """Return the lines of the diary, of one kind and with those values if they are said."""
        wanted = said if what is None else {"what": what, **said}
        return [
            line
            for line in marks.read(self.directory)
            if all(line.get(name) == value for name, value in wanted.items())
        ]

    def noted(self, what: str, *, times: int = 1, seconds: float = 20, **said: Any) -> list[dict[str, Any]]:
        """Wait until the diary has a number of such lines."""

        def enough() -> list[dict[str, Any]] | None:
            found = self.notes(what, **said)
            return found if len(found) >= times else None

        return wait_until(enough, seconds, f"{times} times {what!r} with {said}")

    def open_gate(self, name: str) -> None:
        """Let workflows go on that wait at a gate."""
        marks.open_gate(self.directory, name)


def overlaps(notes: Sequence[Mapping[str, Any]]) -> int:
    """Return how many were inside at once at most, by the order of the diary's lines `enter` and `leave`."""
    inside: set[str] = set()
    most = 0
    for line in notes:
        if line["what"] == "enter":
            inside.add(line["run"])
        elif line["what"] == "leave":
            inside.discard(line["run"])
        most = max(most, len(inside))
    return most
