"""(15) A fork of a machine with 64 MiB used: until its disk is copied, and until it runs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from time import perf_counter

from bench.figures import Result
from bench.stack import WAIT_MS, Stack
from bench.wire import BadAnswer
from bench.workbench import Workbench

TITLE = "(15) fork of a machine with 64 MiB used"
_MIB = 1 << 20
_SETTLED_SECONDS = 1.5
"""Until what the fork before has left to write is on the disk."""
_BUDGET_MS = 50.0


def run(bench: Workbench) -> Result:
    result = Result("fork", TITLE)
    stack, rounds = bench.stack, bench.amount(15, 4)
    copied: dict[str, list[float]] = {"asleep": [], "awake": []}
    ran: dict[str, list[float]] = {"asleep": [], "awake": []}
    plain: list[float] = []
    with stack.machine(storage_gib=10) as machine, stack.connect() as connection:
        used = 60 * _MIB  # and what the file system itself takes
        stack.finish(connection, machine, ["sh", "-c", f"head -c {used} /dev/urandom > /root/data && sync"])
        for state, until_copied in copied.items():
            action = "sleep" if state == "asleep" else "wake"
            connection.ask(stack.request("POST", f"/v1/machines/{machine}/{action}?wait_ms={WAIT_MS}")).json()
            for _ in range(rounds):
                time.sleep(_SETTLED_SECONDS)
                first, last = _fork(stack, machine)
                until_copied.append(first)
                ran[state].append(last)
                plain.append(_copy(stack.directory, 64 * _MIB))
    result.add("64 MiB copied by copy_file_range, as the same file system does it", "ms", (1000 * t for t in plain))
    for state, until_copied in copied.items():
        row = result.add(
            f"fork of a machine that is {state}, until its disk is copied", "ms", (1000 * t for t in until_copied)
        )
        result.add(f"fork of a machine that is {state}, until it runs", "ms", (1000 * t for t in ran[state]))
        result.bound(f"fork of a machine that is {state}", row.median, _BUDGET_MS, unit="ms")
    return result


def _fork(stack: Stack, machine: str) -> tuple[float, float]:
    """Return the seconds until the disk is copied, and until the fork runs."""
    with stack.connect() as connection:
        began = perf_counter()
        made = connection.ask(stack.request("POST", f"/v1/machines/{machine}/fork")).json()
        copied = perf_counter() - began
        if not made["copied"]:
            raise BadAnswer(f"the disk is not copied: {made}")
        path = f"/v1/machines/{made['machine_id']}?wait_ms={WAIT_MS}"
        if connection.ask(stack.request("GET", path)).json()["phase"] != "running":
            raise BadAnswer(f"the fork does not run: {made}")
        ran = perf_counter() - began
        stack.delete_machine(connection, made["machine_id"])
    return copied, ran


def _copy(directory: Path, size: int) -> float:
    """Return the seconds that a file of this size takes to copy from one that is in memory, not written out."""
    source, target = directory / "copied", directory / "copy"
    if not source.exists():
        source.write_bytes(os.urandom(size))
        os.sync()
    began = perf_counter()
    with source.open("rb") as reading, target.open("wb") as writing:
        left = size
        while left:
            left -= os.copy_file_range(reading.fileno(), writing.fileno(), left)
    took = perf_counter() - began
    target.unlink()
    return took
