"""(2) Durable executions per second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import uvloop

from bench.figures import Result
from bench.stack import WAIT_MS, Stack
from bench.wire import BadAnswer, load
from bench.workbench import Workbench

TITLE = "(2) durable executions of `true` per second"
LANES = (1, 8, 32)
BUDGET_LANES = 32


def run(bench: Workbench) -> Result:
    result = Result("execution-rate", TITLE)
    rounds, seconds = bench.amount(6, 2), float(bench.amount(3, 2))
    bare: list[float] = []
    rates: dict[int, list[float]] = {lanes: [] for lanes in LANES}
    latencies: dict[int, list[float]] = {lanes: [] for lanes in LANES}
    client = 0.0
    with bench.stack.machine() as machine:
        _measure(bench.stack, machine, BUDGET_LANES, 0.5)
        for _ in range(rounds):
            for lanes in LANES:
                bare.append(bench.spawn_loops.rate(seconds / 2))
                began = time.process_time()
                rate, took = _measure(bench.stack, machine, lanes, seconds)
                client += time.process_time() - began
                rates[lanes].append(rate)
                latencies[lanes] += took
    result.add("bare spawn loops, one per core", "/s", bare)
    for lanes in LANES:
        result.add(f"Dormice, {lanes} in flight", "/s", rates[lanes])
    for lanes in LANES:
        result.add(f"  latency with {lanes} in flight", "ms", (1000 * took for took in latencies[lanes]))
    ratios = statistics.median(rates[BUDGET_LANES]) / statistics.median(bare)
    result.bound(f"of the bare spawn rate, {BUDGET_LANES} in flight", ratios, 0.4, at_most=False)
    share = client / (rounds * len(LANES) * seconds)
    result.notes.append(f"the load generator runs on the same cores and takes {share:.2f} of one")
    return result


def _measure(stack: Stack, machine: str, lanes: int, seconds: float) -> tuple[float, list[float]]:
    """Return the rate and every latency."""
    requests = _requests(stack, machine, int(seconds * 3000) + lanes)
    took: list[float] = []
    end = time.perf_counter() + seconds

    def next_request() -> bytes | None:
        return next(requests, None) if time.perf_counter() < end else None

    def done(latency: float, answer: bytes) -> None:
        if b'"status":"succeeded"' not in answer:
            raise BadAnswer(answer.decode())
        took.append(latency)

    began = time.perf_counter()
    uvloop.run(load(stack.address, lanes, next_request, done))
    return len(took) / (time.perf_counter() - began), took


def _requests(stack: Stack, machine: str, count: int) -> Iterator[bytes]:
    path = f"/v1/machines/{machine}/executions?wait_ms={WAIT_MS}"
    return iter([stack.request("POST", path, {"command": ["true"]}) for _ in range(count)])
