"""(9) Workflows of three durable steps: throughput, latency, memory and disk, side by side with others."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from bench.figures import Result
from bench.peers.absurd import Absurd
from bench.peers.dbos import DbosOnPostgres, DbosOnSqlite
from bench.peers.dormice import Dormice
from bench.peers.prefect import Prefect
from bench.peers.restate import Restate
from bench.peers.temporal import Temporal
from bench.peers.workflow_peer import RunningPeer, Unavailable, WorkflowPeer
from bench.workbench import Workbench

TITLE = "(9) workflows of three durable steps"
PEERS: Sequence[WorkflowPeer] = (
    Dormice(),
    Restate(),
    Temporal(),
    Absurd(),
    DbosOnPostgres(),
    DbosOnSqlite(),
    Prefect(),
)
"""The ratios are those to the first, ourselves."""
IN_FLIGHT = (1, 16, 64)
RATE = 10.0
"""Workflows per second of the open loop; of a slower system half of what it did in a closed one, or we would measure our own queue."""
FEWEST = 5
"""Workflows of an open loop, however long they take."""
LONGEST = 30.0
"""Seconds that one workflow for each that is in flight may take, or so many are not tried."""
CPU_IN_FLIGHT = 16
MIB = float(1 << 20)
KIB = 1024.0


@dataclass(slots=True)
class Measured:
    """What was found of one system in all rounds."""

    rates: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: list[float] = field(default_factory=list)
    first_step: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
    worker: list[float] = field(default_factory=list)
    disk: list[float] = field(default_factory=list)
    rate: float = RATE
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def best_rate(self) -> float:
        """What it did at best; before it has done anything, what the open loop asks for at most."""
        return max((rate for rates in self.rates.values() for rate in rates), default=RATE)


def run(bench: Workbench) -> Result:
    result = Result("workflow-rate", TITLE)
    measured = {peer.name: Measured() for peer in PEERS}
    peers = [peer for peer in PEERS if _tried(measured[peer.name], "installed", peer.install)]
    for _ in range(bench.amount(2, 1)):
        peers = [
            peer
            for peer in peers
            if _tried(measured[peer.name], "started", partial(_round, bench, peer, measured[peer.name]))
        ]
    _rows(result, measured)
    _budgets(result, measured)
    for peer in PEERS:
        found = measured[peer.name]
        kind = "server" if peer.server else "library: its client runs the workflows"
        result.notes.append(f"{peer.name}: {kind}; {peer.fsync}; {peer.setup}")
        result.notes += [f"{peer.name} could not be {what}: {why}" for what, why in found.missing.items()]
        if found.rate < RATE:
            result.notes.append(f"{peer.name} had {found.rate:.2g} per second in the open loop")
    result.notes.append(f"one after another, in rounds; the load of the host at the end was {os.getloadavg()[0]:.1f}")
    return result


def _budgets(result: Result, measured: dict[str, Measured]) -> None:
    """Ours against the best of the servers, at what each does best; a system that was not there bounds nothing."""
    ours = measured[PEERS[0].name]
    others = [measured[peer.name] for peer in PEERS[1:] if peer.server]
    best = max((max(map(statistics.median, found.rates.values()), default=0.0) for found in others), default=0.0)
    if ours.rates and best:
        rate = max(map(statistics.median, ours.rates.values()))
        result.bound("throughput, of the best server among the others", rate / best, 4, at_most=False)
    if ours.first_step:
        result.bound("ms from submit to first step, median", statistics.median(ours.first_step), 10)


def _round(bench: Workbench, peer: WorkflowPeer, found: Measured) -> None:
    """Start a system, measure it once and stop it. Raises Unavailable if it does not start."""
    with peer.running() as system:
        _tried(found, "warmed up", lambda: system.throughput(in_flight=16, seconds=1.0))
        before = system.disk()
        runs = sum(_closed(system, found, in_flight, bench.amount(4, 2)) for in_flight in IN_FLIGHT)
        if runs:
            found.disk.append((system.disk() - before) / runs / KIB)
        _tried(found, "measured in an open loop", lambda: _open(system, found, bench.amount(10, 5)))
        memory = system.memory()
        found.server.append(memory.server / MIB)
        found.worker.append(memory.worker / MIB)


def _closed(system: RunningPeer, found: Measured, in_flight: int, seconds: float) -> int:
    """Return how many workflows there were."""
    runs = 0

    def measure() -> None:
        nonlocal runs
        if in_flight > LONGEST * found.best_rate:
            raise Unavailable(f"at {found.best_rate:.2g} per second that would take more than {LONGEST:.0f} s")
        did = system.throughput(in_flight=in_flight, seconds=seconds)
        runs = did.runs
        found.rates[in_flight].append(did.rate)
        if in_flight == CPU_IN_FLIGHT:
            found.cpu.append(did.cpu_per_run * 1000)

    _tried(found, f"measured with {in_flight} in flight", measure)
    return runs


def _open(system: RunningPeer, found: Measured, seconds: float) -> None:
    found.rate = min(RATE, found.best_rate / 2)
    took = system.latencies(rate=found.rate, seconds=max(seconds, FEWEST / found.rate))
    found.first_step += [value * 1000 for value in took.first_step]
    found.end += [value * 1000 for value in took.end]


def _tried(found: Measured, what: str, measure: Callable[[], object]) -> bool:
    """Do it, or remember why it could not be done."""
    try:
        measure()
    except Unavailable as why:
        found.missing[what] = str(why)
        return False
    return True


def _rows(result: Result, measured: dict[str, Measured]) -> None:
    def section(title: str, unit: str, values: Callable[[Measured], Sequence[float]]) -> None:
        result.section(title)
        for name, found in measured.items():
            if values(found):
                result.add(name, unit, values(found))

    for in_flight in IN_FLIGHT:
        section(f"throughput, {in_flight} in flight", "/s", partial(_rates, in_flight))
    section(f"processor time per workflow, {CPU_IN_FLIGHT} in flight", "ms", lambda found: found.cpu)
    section(f"submit to first step, {RATE:g} per second or less", "ms", lambda found: found.first_step)
    section(f"submit to result, {RATE:g} per second or less", "ms", lambda found: found.end)
    section("memory of the server", "MiB", lambda found: [size for size in found.server if size > 0])
    section("memory of the worker", "MiB", lambda found: found.worker)
    section("disk per workflow", "KiB", lambda found: found.disk)


def _rates(in_flight: int, found: Measured) -> Sequence[float]:
    return found.rates[in_flight]
