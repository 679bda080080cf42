"""(11) How soon a run goes on once what it waits for is there, with our own worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from bench.figures import Result
from bench.own_worker import client, own_worker
from bench.peers.programs import dormice_flows as flows
from bench.stack import Stack
from bench.wire import Connection
from bench.workbench import Workbench
from dormice.workflows import Workflows

TITLE = "(11) until a run goes on"
BOUND = 10
NAP = 0.1
WARM = 10
"""Runs before those that count."""
Measure = Callable[[], float]
"""Returns seconds."""


def run(bench: Workbench) -> Result:
    result = Result("workflow-wakes", TITLE)
    stack = bench.stack
    took: dict[str, list[float]] = {}
    with stack.machine() as machine, own_worker(stack), client(stack) as runs, stack.connect() as connection:
        waking = Waking(stack, connection, runs, machine)
        for round_ in range(bench.amount(10, 3)):
            for name, measure in waking.measurements.items():
                values = [1000 * measure() for _ in range(10 if round_ else WARM)]
                if round_:
                    took.setdefault(name, []).extend(values)
    for name, values in took.items():
        sample = result.add(name, "ms", values)
        if name in waking.bounded:
            result.bound(f"ms, median: {name}", sample.median, BOUND, unit="ms")
    result.notes.append("one run at a time; moments are the host's clock, read by server and worker")
    return result


class Waking:
    """A machine, a worker, and a run at a time."""

    def __init__(self, stack: Stack, connection: Connection, runs: Workflows, machine: str) -> None:
        self._stack, self._connection, self._runs, self._machine = stack, connection, runs, machine
        self._topics = 0
        self.bounded: dict[str, Measure] = {
            "submit to first step": self._first_step,
            "exit of a command, as it is recorded, to the next line": self._command,
            f"moment of a timer of {NAP:g} s to the next line": self._timer,
        }
        self.measurements: dict[str, Measure] = self.bounded | {
            "publication of an event to the next line": self._event,
            "last line of a child to the next line of its parent": self._child,
        }

    def _first_step(self) -> float:
        began = time.monotonic()
        return self._runs.run(flows.steps, 1)[0]["at"] - began

    def _command(self) -> float:
        return self._runs.run(flows.command, self._machine)

    def _timer(self) -> float:
        """From the moment at which the server was to have it go on: the run's record says it."""
        started = self._runs.start(flows.sleeps, NAP)
        went_on = float(self._runs.wait(started).result)
        steps = self._ask(f"/api/v1/executions/{started}/steps")["steps"]
        return went_on - datetime.fromisoformat(steps[0]["outputs"]["wait_until"]).timestamp()

    def _event(self) -> float:
        self._topics += 1
        topic = f"bench/{self._topics}"
        started = self._runs.start(flows.hears, topic)
        while self._runs.get(started).status != "waiting":
            time.sleep(0.001)
        began = time.time()
        self._runs.publish(topic)
        return float(self._runs.wait(started).result) - began

    def _child(self) -> float:
        return self._runs.run(flows.parent)

    def _ask(self, path: str) -> Any:
        return self._connection.ask(self._stack.request("GET", path)).json()
