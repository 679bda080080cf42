"""(19) Machines that sleep: what 10,000 of them cost in memory, and how long a list of them takes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, time_ns

import apsw

from bench.figures import Result
from bench.idle_memory import pss_kib
from bench.stack import Stack, stack
from bench.workbench import Workbench

TITLE = "(19) machines asleep"
FEW = 50
KIB_OF_GIB = 1 << 20
_FILL = """WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < ?2)
INSERT INTO machines (id, organization_id, vcpu, memory_mib, storage_gib, image, autosleep_seconds, desired_state, phase, reason,
    retryable, revision, created_at, last_transition_at, last_progress_at, last_activity_at)
SELECT printf('dm-%08x-%04x-7000-8000-%012x', n >> 16, n & 65535, n), o.id, 1, 1024, 10, 'default', 300, 'sleeping', 'sleeping',
    'DesiredStateReached', 0, 3, ?1, ?1, ?1, ?1
FROM s, (SELECT id FROM organizations LIMIT 1) o"""


def run(bench: Workbench) -> Result:
    result = Result("asleep", TITLE)
    many = bench.amount(10_000, 2_000)
    held, took = {}, {}
    for count in (FEW, many):
        with _asleep(count) as living:
            held[count] = sum(pss_kib(pid) for pid in living.processes().values())
            took[count] = [1000 * seconds for seconds in _lists(living, bench.amount(400, 100))]
    each = (held[many] - held[FEW]) / (many - FEW)
    result.add("memory of server and node for each", "KiB", [each])
    result.add("asleep per GiB of memory", "", [KIB_OF_GIB / each])
    rows = [result.add(f"list of 50, {count:,} asleep", "ms", took[count]) for count in (FEW, many)]
    result.bound("list: many over few", rows[1].median / rows[0].median, 1.5)
    result.notes.append("filled with SQL written for this benchmark; a disk that was never written takes no room")
    return result


@contextmanager
def _asleep(count: int) -> Iterator[Stack]:
    """A stack with so many machines that sleep, started anew once they are there."""
    with tempfile.TemporaryDirectory(prefix="dormice-bench-asleep-") as place:
        directory = Path(place)
        directory.chmod(0o711)
        settings = {"DORMICE_LIMIT_MACHINES_PER_ORGANIZATION": str(2 * count)}
        with stack("many", data_dir=directory, **settings):
            pass
        file = str(directory / "server" / "dormice.sqlite3")
        _change(file, _FILL, time_ns() // 1_000, count)
        with stack("many", data_dir=directory, **settings) as living:
            try:
                yield living
            finally:
                _change(file, "DELETE FROM machines")


def _change(file: str, statement: str, *values: int) -> None:
    db = apsw.Connection(file)
    try:
        db.set_busy_timeout(30_000)
        db.execute(statement, values)
    finally:
        db.close()


def _lists(living: Stack, times: int) -> list[float]:
    took = []
    newest = living.request("GET", "/v1/machines?limit=50")
    with living.connect() as connection:
        for _ in range(times):
            began = perf_counter()
            connection.ask(newest).json()
            took.append(perf_counter() - began)
    return took
