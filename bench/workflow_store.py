"""(13) Runs and their list, with few and with many finished runs in the store."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import apsw

from bench.figures import Result
from bench.own_worker import client, own_worker
from bench.peers.programs.dormice_worker import three_steps
from bench.stack import Stack, stack
from bench.wire import Connection
from bench.workbench import Workbench
from dormice.workflows import Workflows

TITLE = "(13) run and list, by finished runs in the store"
FEW = 1_000
BATCH = 20_000
TIMES = 20
HOUR = 3_600_000_000
_SERIES = "WITH RECURSIVE s(n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM s WHERE n < ?2)"
_ID = "printf('%08x-%04x-7000-8000-%012x', n >> 16, n & 65535, n)"
_TABLES = {"runs": "number", "run_inputs": "run", "run_results": "run", "steps": "run"}
"""What a run that has ended is made of, and the column that says which run."""
_OWN = {
    "number": "n",
    "run": "n",
    "id": _ID,
    "root_id": f"iif(t.root_id IS NULL, NULL, {_ID})",
    "session_id": f"iif(t.session_id IS NULL, NULL, {_ID})",
    "created_at": f"t.created_at - {HOUR} + n",
    "completed_at": f"t.completed_at - {HOUR} + n",
}
"""What a copy does not share with the run that it is a copy of. It has ended a while ago, but not so long that it would be forgotten."""
_KEYS = f"""{_SERIES} INSERT INTO idempotency (scope, key, request_hash, resource_id, keep_until)
    SELECT 'bench runs', lower(hex(randomblob(16))), hex(randomblob(32)), {_ID}, 1 << 60 FROM s"""


class Side:
    """A stack whose store has so many finished runs."""

    def __init__(self, stack: Stack, connection: Connection, runs: Workflows, count: int) -> None:
        self._stack, self._connection, self._runs = stack, connection, runs
        self.count = count
        self.took: dict[str, list[float]] = {}

    def measure(self) -> None:
        """Time each request a few times."""
        path = "/api/v1/executions?limit=50"
        lists = {
            "list": path,
            "list from the middle": f"{path}&cursor=b{self.count // 2}",
            "list of a workflow": f"{path}&workflow_id=three_steps",
            "list of those that have completed": f"{path}&status=completed",
            "list of those that have failed": f"{path}&status=failed",
            "list of those that run": f"{path}&status=running",
        }
        for _ in range(TIMES):
            self._timed("submit to result", lambda: self._runs.run(three_steps))
        for name, target in lists.items():
            message = self._stack.request("GET", target)
            for _ in range(TIMES):
                self._timed(name, lambda message=message: self._connection.ask(message).json())  # type: ignore[misc]

    def _timed(self, name: str, ask: Callable[[], object]) -> None:
        began = perf_counter()
        ask()
        self.took.setdefault(name, []).append(perf_counter() - began)


def run(bench: Workbench) -> Result:
    result = Result("workflow-store", TITLE)
    many = bench.amount(1_000_000, 100_000)
    with (
        stack("few", driver="process") as small,
        stack("many", driver="process") as large,
        own_worker(small),
        own_worker(large),
        client(small) as one,
        client(large) as other,
        small.connect() as near,
        large.connect() as far,
    ):
        fill(small, one, FEW)
        fill(large, other, many)
        sides = [Side(small, near, one, FEW), Side(large, far, other, many)]
        for side in sides:
            side.measure()
            side.took.clear()
        for _ in range(bench.amount(20, 5)):
            for side in sides:
                side.measure()
    for name in sides[0].took:
        result.section(name)
        rows = [
            result.add(f"{side.count:,} finished", "ms", (1000 * took for took in side.took[name])) for side in sides
        ]
        result.bound(f"{name}: many over few", rows[1].median / rows[0].median, 1.5)
    result.notes.append("filled with SQL that copies a run of three steps (5 tables, 7 rows each), not through the API")
    if many < 1_000_000:
        result.notes.append(f"quick: {many:,} instead of 1,000,000")
    return result


def fill(stack: Stack, runs: Workflows, count: int) -> None:
    """Put finished runs into a store, in short transactions, so that its server can go on."""
    runs.run(three_steps)
    db = apsw.Connection(str(stack.directory / "data" / "server" / "dormice.sqlite3"))
    try:
        db.set_busy_timeout(30_000)
        db.pragma("synchronous", "OFF")
        done = db.execute("SELECT max(number) FROM runs").get
        copies = [_copy(db, table, key) for table, key in _TABLES.items()]
        for start in range(done + 1, done + 1 + count, BATCH):
            span = (start, min(start + BATCH, done + 1 + count) - 1)
            with db:
                for copy in copies:
                    db.execute(copy, (*span, done))
                db.execute(_KEYS, span)
    finally:
        db.close()


def _copy(db: apsw.Connection, table: str, key: str) -> str:
    """Return SQL that copies the rows of a run, so often."""
    columns = [str(row[1]) for row in db.execute(f"PRAGMA table_info({table})")]
    values = [_OWN.get(column, f"t.{column}") for column in columns]
    return f"{_SERIES} INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM s, {table} t WHERE t.{key} = ?3"
