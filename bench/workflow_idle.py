"""(12) What a server costs whose runs all wait and whose readers hear nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.figures import Result
from bench.own_worker import own_worker
from bench.peers.processes import memory_of, ran
from bench.stack import Record, Stack, stack
from bench.wire import BadAnswer, Connection
from bench.workbench import Workbench

TITLE = "(12) an idle server with waiting runs and open streams"
RUNS = 10_000
BATCH = 1_000
STREAMS = 100
PARKED_SECONDS = 300.0
FAR = 7 * 24 * 3600.0
SETTLE_SECONDS = 3.0


def run(bench: Workbench) -> Result:
    seconds = float(bench.amount(30, 10))
    result = Result("workflow-idle", f"{TITLE}, over {seconds:.0f} s")
    with stack("idle", driver="process") as idle, own_worker(idle), idle.connect() as connection:
        server = idle.processes()["server"]
        shares = {"nothing yet": _share(server, seconds)}
        sizes = {"nothing yet": memory_of([server])}
        runs = _park(idle, connection)
        with _streams(idle, runs):
            what = f"{RUNS:,} waiting runs, {STREAMS} streams"
            shares[what] = _share(server, seconds)
            sizes[what] = memory_of([server])
    result.section("processor time of the server, of one core; a worker is connected")
    for name, share in shares.items():
        result.add(name, "%", [100 * share])
    result.section("memory of the server")
    for name, size in sizes.items():
        result.add(name, "MiB", [size / (1 << 20)])
    result.bound("% of a core", 100 * shares[what], 1, unit="%")
    result.notes.append(
        f"half of the runs wait for a moment in a week, half for an event of a topic of their own; half of the streams follow a run, half a topic; "
        f"{(sizes[what] - sizes['nothing yet']) / RUNS / 1024:.1f} KiB more for each run"
    )
    return result


def _share(pid: int, seconds: float) -> float:
    """Return the share of a core that a process takes, once what was done before is over."""
    time.sleep(SETTLE_SECONDS)
    before, began = ran(pid), time.monotonic()
    time.sleep(seconds)
    return (ran(pid) - before) / (time.monotonic() - began)


def _park(idle: Stack, connection: Connection) -> list[str]:
    """Start the runs, wait until all of them wait, and return their ids."""
    entries: list[Record] = [
        {"workflow_id": "hears", "payload": f"bench/{number}"}
        if number % 2
        else {"workflow_id": "sleeps", "payload": FAR}
        for number in range(RUNS)
    ]
    ids: list[str] = []
    for start in range(0, RUNS, BATCH):
        body = {"workflows": entries[start : start + BATCH]}
        made = connection.ask(idle.request("POST", "/api/v1/workflows/batch_run", body)).json()["executions"]
        ids += [record["execution_id"] for record in made]
    deadline = time.monotonic() + PARKED_SECONDS
    while _waiting(idle, connection) < RUNS:
        if time.monotonic() > deadline:
            raise BadAnswer(f"only {_waiting(idle, connection)} of {RUNS} runs wait after {PARKED_SECONDS:.0f} s")
        time.sleep(0.5)
    return ids


def _waiting(idle: Stack, connection: Connection) -> int:
    queues = connection.ask(idle.request("GET", "/api/v1/queues")).json()["queues"]
    return sum(int(queue["waiting"]) for queue in queues)


@contextmanager
def _streams(idle: Stack, runs: list[str]) -> Iterator[None]:
    with ExitStack() as held:
        for number in range(STREAMS):
            of_run = f"workflow_id=sleeps&workflow_run_id={runs[2 * number]}"
            reader = held.enter_context(idle.connect())
            reader.send(
                idle.request("GET", f"/api/v1/events/stream?{of_run if number % 2 else f'topic=bench/{number}'}")
            )
            status, _ = reader.head()
            if status != 200:
                raise BadAnswer(f"a stream: {status}")
        yield
