"""(8) What a tenant who takes all he can does to the others: `true` on another organization's machine meanwhile."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import perf_counter

import uvloop

from bench.figures import Result
from bench.stack import Stack
from bench.wire import BadAnswer, load
from bench.workbench import Workbench

TITLE = "(8) `true` on a machine while another organization does its worst"
BOUND = 3
LANES = 64
BACKLOG = 10_000
FLOODS = 30
READERS = 100
PAGE = 1_000
SETTLE_SECONDS = 0.5
Attack = Callable[[Stack, str], Iterator[None]]


def run(bench: Workbench) -> Result:
    result = Result("neighbours", TITLE)
    seconds = float(bench.amount(4, 2))
    victim = bench.stack
    quiet: list[float] = []
    disturbed: dict[str, list[float]] = {}
    with victim.machine(vcpu=1) as machine:
        for number, (name, attack) in enumerate(ATTACKS.items()):
            attacker = replace(victim, key=_new_key(victim, f"attacker {number}"))
            quiet += _sampled(victim, machine, seconds / 2)
            with attacker.machine(vcpu=1) as theirs, contextmanager(attack)(attacker, theirs):
                time.sleep(SETTLE_SECONDS)
                disturbed[name] = _sampled(victim, machine, seconds)
            time.sleep(SETTLE_SECONDS)
    alone = result.add("nobody else", "ms", (1000 * took for took in quiet))
    for name, took in disturbed.items():
        sample = result.add(name, "ms", (1000 * seconds for seconds in took))
        result.bound(f"times a quiet host: {name}", sample.median / alone.median, BOUND)
    return result


def _sampled(stack: Stack, machine: str, seconds: float) -> list[float]:
    took = []
    end = perf_counter() + seconds
    with stack.connect() as connection:
        while perf_counter() < end:
            began = perf_counter()
            stack.finish(connection, machine, ["true"])
            took.append(perf_counter() - began)
            time.sleep(0.005)
    return took


def _new_key(stack: Stack, organization: str) -> str:
    body = {"organization": organization, "name": "bench"}
    with stack.connect() as connection:
        return str(connection.ask(stack.request("POST", "/v1/keys", body)).json()["key"])


@contextmanager
def _elsewhere(work: Callable[..., None], *arguments: object) -> Iterator[None]:
    """Run it in a process of its own, until the end of the block. It comes after all others, as a client on another host would not compete."""
    process = multiprocessing.get_context("spawn").Process(target=_politely, args=(work, *arguments))
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _politely(work: Callable[..., None], *arguments: object) -> None:
    os.setsid()
    os.nice(19)
    with contextlib.suppress(FileNotFoundError):  # where sessions share the processors each for itself
        Path("/proc/self/autogroup").write_text("19")
    work(*arguments)


def _tiny(stack: Stack, machine: str) -> Iterator[None]:
    with _elsewhere(_post_on, stack, machine, LANES):
        yield


def _more_tiny(stack: Stack, machine: str) -> Iterator[None]:
    with _elsewhere(_post_on, stack, machine, 8 * LANES):
        yield


def _post_on(stack: Stack, machine: str, lanes: int) -> None:
    path = f"/v1/machines/{machine}/executions?wait_ms=55000"
    uvloop.run(load(stack.address, lanes, lambda: stack.request("POST", path, {"command": ["true"]}), lambda *_: None))


def _reads(stack: Stack, machine: str) -> Iterator[None]:
    _post(stack, machine, PAGE)
    with _elsewhere(_read_on, stack, machine):
        yield


def _read_on(stack: Stack, machine: str) -> None:
    path = f"/v1/machines/{machine}/executions?limit={PAGE}"
    uvloop.run(load(stack.address, LANES, lambda: stack.request("GET", path), lambda *_: None))


def _backlog(stack: Stack, machine: str) -> Iterator[None]:
    """As many executions as one machine may have waiting."""
    _post(stack, machine, BACKLOG)
    yield


def _post(stack: Stack, machine: str, number: int) -> None:
    left = count()
    path = f"/v1/machines/{machine}/executions"

    def next_request() -> bytes | None:
        return stack.request("POST", path, {"command": ["true"]}) if next(left) < number else None

    uvloop.run(load(stack.address, LANES, next_request, lambda *_: None))


def _commands(script: str, number: int) -> Attack:
    def attack(stack: Stack, machine: str) -> Iterator[None]:
        with stack.connect() as connection:
            for _ in range(number):
                record = stack.execute(connection, machine, ["sh", "-c", script], wait_ms=0)
                if "execution_id" not in record:
                    raise BadAnswer(str(record))
        yield

    return attack


def _slow_readers(stack: Stack, machine: str) -> Iterator[None]:
    with ExitStack() as held:
        connection = held.enter_context(stack.connect())
        record = stack.finish(connection, machine, ["sh", "-c", "yes | head -c 16000000"])
        path = f"/v1/machines/{machine}/executions/{record['execution_id']}/events"
        for _ in range(READERS):
            reader = held.enter_context(stack.connect())
            message = stack.request("GET", path)
            reader.send(message.replace(b"\r\n\r\n", b"\r\nAccept: text/event-stream\r\n\r\n"))
        yield


ATTACKS: dict[str, Attack] = {
    f"{LANES} executions of `true` in flight": _tiny,
    f"{8 * LANES} executions of `true` in flight": _more_tiny,
    f"{BACKLOG:,} executions of `true` waiting": _backlog,
    f"{FLOODS} floods of output": _commands("yes | head -c 4000000000", FLOODS),
    f"{LANES} floods of output in small pieces": _commands("while :; do echo x; done", LANES),
    f"{LANES} busy loops": _commands("while :; do :; done", LANES),
    "a fork bomb": _commands("bomb() { bomb | bomb & }; bomb; sleep 60", 4),
    "all memory": _commands("tail /dev/zero", 8),
    "a disk that fills": _commands("while :; do dd if=/dev/zero of=$$ bs=1M conv=fsync; rm $$; done", 4),
    "many small files": _commands("i=0; while :; do i=$((i+1)); : > $$.$i; done", 8),
    f"{LANES} lists of {PAGE:,} at once": _reads,
    f"{READERS} readers who do not read": _slow_readers,
}
