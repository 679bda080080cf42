"""(10) Workflows of other shapes: many children at once, many that sleep, and many steps."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from bench.figures import Result
from bench.peers.absurd import Absurd
from bench.peers.dbos import DbosOnPostgres, DbosOnSqlite
from bench.peers.dormice import Dormice
from bench.peers.restate import Restate
from bench.peers.temporal import Temporal
from bench.peers.workflow_peer import RunningPeer, Unavailable, WorkflowPeer
from bench.workbench import Workbench

TITLE = "(10) workflows of other shapes"
PEERS: Sequence[WorkflowPeer] = (Dormice(), Restate(), Temporal(), Absurd(), DbosOnPostgres(), DbosOnSqlite())
"""The ratios are those to the first, ourselves."""
PART = 100
"""Steps at either end of a long run that are compared."""
LONGEST = 60.0
"""Seconds that one measurement may take, besides what the last workflows take to end."""
Found = dict[str, list[float]]
"""What was measured, by system."""


def run(bench: Workbench) -> Result:
    result = Result("workflow-shapes", TITLE)
    found: defaultdict[str, Found] = defaultdict(dict)
    for peer in PEERS:
        try:
            peer.install()
            with peer.running() as system:
                system.throughput(in_flight=16, seconds=1.0)  # code that has not run yet takes longer
                for name, measure in _MEASUREMENTS.items():
                    try:
                        for title, values in measure(system, bench).items():
                            found[title][peer.name] = values
                    except Unavailable as why:
                        result.notes.append(f"{peer.name}, {name}: {why}")
        except Unavailable as why:
            result.notes.append(f"{peer.name} could not be started: {why}")
    for title, rows in found.items():
        result.section(title)
        for name, values in rows.items():
            result.add(name, "s" if title.endswith("(s)") else "ms", values)
    _budgets(result, found)
    result.notes.append(f"one after another; the load of the host at the end was {os.getloadavg()[0]:.1f}")
    return result


def _fan_out(system: RunningPeer, bench: Workbench) -> Found:
    children = bench.amount(1_000, 200)
    times = [system.shape("fan_out", children, seconds=LONGEST) for _ in range(bench.amount(3, 1))]
    return {f"{children:,} children and back (s)": [shaped.seconds[0] for shaped in times]}


_FIRST, _LAST = f"a step of the first {PART}", f"a step of the last {PART}"


def _steps(system: RunningPeer, bench: Workbench) -> Found:
    """Where a host is shared, processor time says more than the time that has gone by."""
    steps, runs = bench.amount(1_000, 300), bench.amount(1_000, 200)
    long = [system.shape("one_run", steps, seconds=LONGEST) for _ in range(bench.amount(3, 1))]
    short = system.shape("many_runs", runs, seconds=LONGEST)
    return {
        f"1 run of {steps:,} steps, for each step": [1000 * shaped.seconds[-1] / steps for shaped in long],
        f"{runs:,} runs of 1 step one after another, for each": [1000 * seconds for seconds in short.seconds],
        f"processor time: 1 run of {steps:,} steps, for each step": [1000 * one.cpu / steps for one in long],
        f"processor time: {runs:,} runs of 1 step, for each": [1000 * short.cpu / runs],
        _FIRST: [step for shaped in long for step in _between(shaped.seconds[: PART + 1])],
        _LAST: [step for shaped in long for step in _between(shaped.seconds[-PART - 2 : -1])],
    }


def _sleepers(system: RunningPeer, bench: Workbench) -> Found:
    count = bench.amount(10_000, 2_000)
    late = system.shape("sleepers", count, seconds=4 * LONGEST).seconds
    last = max(number / count + seconds for number, seconds in enumerate(late))
    return {
        f"{count:,} sleepers due within one second: until the last has gone on (s)": [last],
        f"{count:,} sleepers due within one second: lateness": [1000 * seconds for seconds in late],
    }


_MEASUREMENTS = {"children": _fan_out, "steps": _steps, "sleepers": _sleepers}


def _budgets(result: Result, found: dict[str, Found]) -> None:
    """Of the quickest tenth of the steps, which others on the host have not disturbed."""
    ours = {title: rows[PEERS[0].name] for title, rows in found.items() if PEERS[0].name in rows}
    if _FIRST in ours:
        first, last = (statistics.quantiles(ours[title], n=10)[0] for title in (_FIRST, _LAST))
        result.bound(f"{_LAST}, of one of the first {PART}, the quickest tenth of each", last / first, 1.5)


def _between(moments: Sequence[float]) -> list[float]:
    return [1000 * (after - before) for before, after in pairwise(moments)]
