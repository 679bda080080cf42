"""(1) From create to finished: `true` on a live machine."""

from __future__ import annotations

from time import perf_counter

from bench.figures import Result
from bench.peers.spawn import timed_spawn
from bench.stack import WAIT_MS, Stack
from bench.wire import BadAnswer, Connection
from bench.workbench import Workbench

TITLE = "(1) create to finished of `true` on a live machine"


def run(bench: Workbench) -> Result:
    result = Result("execution-latency", TITLE)
    ours: list[float] = []
    theirs: list[float] = []
    bare: list[float] = []
    rounds = bench.amount(20, 5)
    docker = bench.docker
    with (
        bench.stack.machine() as machine,
        bench.stack.connect() as connection,
        docker.container() as container,
        docker.connect() as engine,
    ):
        _one(bench.stack, connection, machine)
        docker.execute(engine, container, ["true"])
        for _ in range(rounds):
            ours += [_one(bench.stack, connection, machine) for _ in range(50)]
            for _ in range(5):
                began = perf_counter()
                docker.execute(engine, container, ["true"])
                theirs.append(perf_counter() - began)
            bare += [timed_spawn() for _ in range(50)]
    dormice = result.add("Dormice, one POST with wait_ms", "ms", (1000 * took for took in ours))
    engine_exec = result.add("Docker Engine exec API", "ms", (1000 * took for took in theirs))
    spawn = result.add("bare posix_spawn and wait, from Python", "ms", (1000 * took for took in bare))
    result.bound("times faster than the Docker exec API", engine_exec.median / dormice.median, 20, at_most=False)
    result.bound("times a bare spawn", dormice.median / spawn.median, 4)
    result.notes.append(f"Docker {docker.version}; both durable record and exit code are in our one answer")
    return result


def _one(stack: Stack, connection: Connection, machine: str) -> float:
    path = f"/v1/machines/{machine}/executions?wait_ms={WAIT_MS}"
    message = stack.request("POST", path, {"command": ["true"]})
    began = perf_counter()
    answer = connection.ask(message)
    took = perf_counter() - began
    if b'"status":"succeeded"' not in answer.body:
        raise BadAnswer(answer.body.decode())
    return took
