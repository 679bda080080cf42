"""(4) One GiB of output: what is counted, what is kept, and what it costs in memory."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import perf_counter

from bench.figures import Result
from bench.stack import Record, Stack, stack
from bench.wire import BadAnswer
from bench.workbench import Workbench

TITLE = "(4) 1 GiB of output"
MIB = 1 << 20
KEPT = 16 * MIB
LINE = "the quick brown dormouse sleeps until somebody has work for it\n"
"""63 bytes: its period fits no buffer's size, so that a lost or doubled piece shows."""
FLAT_MIB = 32
PIECE = 8 * MIB


@dataclass(slots=True)
class Watch:
    """The largest resident sets that were seen, in MiB."""

    before: dict[str, float]
    peak: dict[str, float] = field(default_factory=dict)

    def growth(self) -> dict[str, float]:
        return {name: self.peak[name] - self.before[name] for name in self.before}


def run(bench: Workbench) -> Result:
    result = Result("output-flood", TITLE)
    size = bench.amount(1024, 128) * MIB
    runs = bench.amount(3, 1)
    _flood(bench.stack, result, "kept limit of 16 MiB", size, KEPT, runs)
    with stack("keep", DORMICE_LIMIT_KEPT_OUTPUT_BYTES=str(4096 * MIB)) as keeper:
        _flood(keeper, result, "all kept", size, size, runs)
    docker = bench.docker
    rates = []
    with docker.container() as container, docker.connect() as engine:
        for _ in range(runs):
            began = perf_counter()
            if docker.execute(engine, container, _command(size)) < size:
                raise BadAnswer("docker lost output")
            rates.append(size / MIB / (perf_counter() - began))
    result.add("docker exec, read from the API, nothing kept", "MiB/s", rates)
    if size < 1024 * MIB:
        result.notes.append(f"quick: {size // MIB} MiB instead of 1 GiB")
    return result


def _flood(stack: Stack, result: Result, label: str, size: int, kept: int, runs: int) -> None:
    rates: list[float] = []
    growth: dict[str, list[float]] = {}
    neighbours: list[float] = []
    lost = 0
    with stack.machine() as machine, stack.machine() as neighbour, stack.connect() as connection:
        stack.finish(connection, machine, _command(2 * KEPT))  # buffers of ordinary size are there from now on
        for _ in range(runs):
            with _watched(stack) as watch, _disturbed(stack, neighbour, neighbours):
                record = stack.finish(connection, machine, _command(size))
            rates.append(size / MIB / _seconds(record))
            lost += size - record["stdout_bytes"]
            lost += _wrong(stack, machine, record, min(kept, size))
            for name, more in watch.growth().items():
                growth.setdefault(name, []).append(more)
    result.add(f"Dormice, {label}", "MiB/s", rates)
    result.add(f"  meanwhile `true` on another machine, {label}", "ms", (1000 * took for took in neighbours))
    result.bound(f"bytes lost or wrong, {label}", lost, 0, unit="B")
    for name, grown in growth.items():
        result.bound(f"growth of {name}, {label}", max(grown), FLAT_MIB, unit="MiB")


def _command(size: int) -> list[str]:
    return ["sh", "-c", f"yes '{LINE.strip()}' | head -c {size}"]


def _seconds(record: Record) -> float:
    start, end = (datetime.fromisoformat(record[name]) for name in ("started_at", "completed_at"))
    return (end - start).total_seconds()


def _wrong(stack: Stack, machine: str, record: Record, kept: int) -> int:
    """Return 0 if the kept bytes are exactly the first ones written, else how many were asked for."""
    found, expected = hashlib.sha256(), hashlib.sha256()
    target = f"/v1/machines/{machine}/executions/{record['execution_id']}/output/stdout"
    pattern = LINE.encode() * (PIECE // len(LINE) + 2)
    with stack.connect() as connection:
        for start in range(0, kept, PIECE):
            end = min(start + PIECE, kept)
            message = stack.request("GET", target)
            found.update(
                connection.ask(message.replace(b"\r\n\r\n", b"\r\nRange: bytes=%d-%d\r\n\r\n" % (start, end - 1))).body
            )
            expected.update(pattern[start % len(LINE) :][: end - start])
    return 0 if found.digest() == expected.digest() else kept


@contextmanager
def _watched(stack: Stack) -> Iterator[Watch]:
    """Watch the resident sets of server, node and the guests."""
    processes = stack.processes() | {f"guest {n}": pid for n, pid in enumerate(stack.guests())}
    watch = Watch(_resident(processes))
    over = threading.Event()

    def look() -> None:
        while True:
            for name, size in _resident(processes).items():
                watch.peak[name] = max(size, watch.peak.get(name, 0.0))
            if over.wait(0.05):
                return

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield watch
    finally:
        over.set()
        watcher.join()


def _resident(processes: dict[str, int]) -> dict[str, float]:
    return {name: _status_kib(pid) / 1024 for name, pid in processes.items()}


def _status_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


@contextmanager
def _disturbed(stack: Stack, machine: str, took: list[float]) -> Iterator[None]:
    """Run `true` on another machine ten times a second meanwhile."""
    over = threading.Event()

    def ask() -> None:
        with stack.connect() as connection:
            while not over.wait(0.1):
                began = perf_counter()
                stack.finish(connection, machine, ["true"])
                took.append(perf_counter() - began)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield
    finally:
        over.set()
        asker.join()
    time.sleep(0.1)
