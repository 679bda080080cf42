"""A running peer whose client is a process of its own, in the peer's environment, that is told what to do."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

from bench.peers.processes import READY_SECONDS, Child, cpu_of, memory_of, process
from bench.peers.programs.load import DRAIN_SECONDS
from bench.peers.workflow_peer import Latencies, Memory, Shaped, Throughput, Unavailable

PROGRAMS = "bench.peers.programs"
READY = json.dumps({"ready": True}) + "\n"


@dataclass(frozen=True, slots=True)
class DrivenPeer:
    """Implements RunningPeer. `worker` is the client itself where a library runs workflows in their client's process."""

    client: Child
    worker: Child
    servers: Sequence[Child]
    measure_disk: Callable[[], int]

    def throughput(self, *, in_flight: int, seconds: float) -> Throughput:
        before = cpu_of(self._pids())
        answer = self._ask(do="throughput", in_flight=in_flight, seconds=seconds)
        return Throughput(answer["runs"], answer["seconds"], cpu_of(self._pids()) - before)

    def latencies(self, *, rate: float, seconds: float) -> Latencies:
        answer = self._ask(do="latencies", rate=rate, seconds=seconds)
        return Latencies(answer["first_step"], answer["end"])

    def shape(self, name: str, amount: int, *, seconds: float) -> Shaped:
        before = cpu_of(self._pids())
        answer = self._ask(do="shape", name=name, amount=amount, seconds=seconds)
        return Shaped(answer["seconds"], cpu_of(self._pids()) - before)

    def memory(self) -> Memory:
        servers = memory_of(child.process.pid for child in self.servers)
        return Memory(servers, memory_of([self.worker.process.pid]))

    def disk(self) -> int:
        return self.measure_disk()

    def _pids(self) -> set[int]:
        return {child.process.pid for child in (self.client, self.worker, *self.servers)}

    def _ask(self, **order: Any) -> dict[str, Any]:
        orders, answers = self.client.process.stdin, self.client.process.stdout
        if orders is None or answers is None:
            raise ValueError("the client's standard input and output are not ours")
        try:
            print(json.dumps(order), file=orders, flush=True)
            with _killed_after(self.client, order["seconds"] + 2 * DRAIN_SECONDS):
                line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Unavailable(f"the client has ended: {self.client.log_end()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Unavailable(answer["error"])
        return answer


@contextmanager
def worker(
    python: str,
    program: str,
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Child]:
    """Run one of the programs as a worker. `python`: of the environment that it needs."""
    command = [python, "-m", f"{PROGRAMS}.{program}", *arguments]
    with process("worker", command, directory, stop=signal.SIGINT, environment=environment) as child:
        yield child


@contextmanager
def client(
    python: str,
    program: str,
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Child]:
    """Run one of the programs as a client, likewise, and wait until it is ready. Raises Unavailable."""
    command = [python, "-m", f"{PROGRAMS}.{program}", *arguments]
    with process("client", command, directory, piped=True, environment=environment) as child:
        wait_ready(child)
        yield child


def wait_ready(child: Child) -> None:
    """Wait until a client can be told what to do, whatever it says before. Raises Unavailable."""
    with _killed_after(child, READY_SECONDS):
        for line in child.process.stdout or ():
            if line == READY:
                return
    raise Unavailable(f"the client is not ready: {child.log_end()}")


@contextmanager
def _killed_after(child: Child, seconds: float) -> Iterator[None]:
    """End a client that does not answer: its pipe ends with it, and with that our reading."""
    timer = Timer(seconds, child.process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
