"""(6) Create and list, with few and with many finished executions in the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter, time_ns

import apsw

from bench.figures import Result
from bench.stack import WAIT_MS, Stack, stack
from bench.wire import Connection
from bench.workbench import Workbench

TITLE = "(6) create and list, by finished executions in the store"
FEW = 1_000
BATCH = 20_000
AGO_NS = 3_600 * 10**9
"""How long before the measurement those executions ran: the server deletes those of long ago."""
_ID = "printf('exec-%08x-%04x-7000-8000-%012x', n >> 16, n & 65535, n)"
_SERIES = "WITH RECURSIVE s(n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM s WHERE n < ?2)"
_FILL = (
    f"""{_SERIES} INSERT INTO executions (number, id, machine, state, created_at, start_by, started_at, completed_at,
        exit_code, stdout_bytes, stderr_bytes, stdout_kept, stderr_kept, last_sequence, boot_id, fence, stdin_offset,
        stdin_eof)
    SELECT n, {_ID}, ?3, 'succeeded', ?4 + n, ?4 + n + 9000, ?4 + n + 1000, ?4 + n + 2000, 0, 6, 0, 6, 0, 4,
        x'00112233445566778899aabbccddeeff', 1, 0, 1 FROM s""",
    f"""{_SERIES} INSERT INTO requests (execution, command, cwd, env_keys, stdin_mode)
    SELECT n, cast('["echo","hello"]' AS BLOB), '/root', cast('[]' AS BLOB), 'empty' FROM s""",
    f"""{_SERIES} INSERT INTO log (execution, sequence, at, state, stream, "offset", data, exit_code)
    SELECT n, e.column1, ?3 + n, e.column2, e.column3, e.column4, e.column5, e.column6 FROM s, (VALUES
        (1, 'queued', NULL, NULL, NULL, NULL), (2, 'running', NULL, NULL, NULL, NULL),
        (3, NULL, 1, 0, x'68656c6c6f0a', NULL), (4, 'succeeded', NULL, NULL, NULL, 0)) e""",
    f"""{_SERIES} INSERT INTO idempotency (scope, key, request_hash, resource_id, keep_until)
    SELECT ?3, lower(hex(randomblob(16))), hex(randomblob(32)), {_ID}, ?4 FROM s""",
)


class Side:
    """A stack whose store has so many finished executions."""

    def __init__(self, stack: Stack, connection: Connection, machine: str, count: int) -> None:
        self._stack, self._connection, self._machine = stack, connection, machine
        self._path = f"/v1/machines/{machine}/executions"
        self.count = count
        self.took: dict[str, list[float]] = {"create": [], "list": [], "list from the middle": []}

    def measure(self, times: int) -> None:
        """Time each request so often."""
        for _ in range(times):
            message = self._stack.request("POST", self._path, {"command": ["true"]})
            made = self._timed("create", lambda message=message: self._connection.ask(message).json())  # type: ignore[misc]
            self._connection.ask(
                self._stack.request("GET", f"{self._path}/{made['execution_id']}?wait_ms={WAIT_MS}")
            ).json()
        newest = self._stack.request("GET", f"{self._path}?limit=50")
        middle = self._stack.request("GET", f"{self._path}?limit=50&cursor=b{self.count // 2}")
        for _ in range(times):
            self._timed("list", lambda: self._connection.ask(newest).json())
            self._timed("list from the middle", lambda: self._connection.ask(middle).json())

    def _timed(self, name: str, ask: Callable[[], dict[str, str]]) -> dict[str, str]:
        began = perf_counter()
        answer = ask()
        self.took[name].append(perf_counter() - began)
        return answer


def run(bench: Workbench) -> Result:
    result = Result("store-size", TITLE)
    many = bench.amount(1_000_000, 200_000)
    with (
        stack("few") as small,
        stack("many") as large,
        small.machine() as one,
        large.machine() as other,
        small.connect() as near,
        large.connect() as far,
    ):
        fill(small, near, one, FEW)
        fill(large, far, other, many)
        sides = [Side(small, near, one, FEW), Side(large, far, other, many)]
        for side in sides:
            side.measure(20)
            for took in side.took.values():
                took.clear()
        for _ in range(bench.amount(20, 10)):
            for side in sides:
                side.measure(20)
    for name in sides[0].took:
        rows = [
            result.add(f"{name}, {side.count:,} finished", "ms", (1000 * t for t in side.took[name])) for side in sides
        ]
        result.bound(f"{name}: many over few", rows[1].median / rows[0].median, 1.5)
    result.notes.append("filled with SQL written for this benchmark (5 tables, 8 rows each), not through the API")
    if many < 1_000_000:
        result.notes.append(f"quick: {many:,} instead of 1,000,000")
    return result


def fill(stack: Stack, connection: Connection, machine_id: str, count: int) -> None:
    """Put finished executions into a store, in short transactions, so that its server can go on."""
    done = stack.finish(connection, machine_id, ["true"])  # there is an organization, a machine, a boot
    file = Path(stack.directory) / "data" / "server" / "dormice.sqlite3"
    with_keys = (f"bench {machine_id}", 1 << 60)
    finished = (time_ns() - AGO_NS) // 1_000
    db = apsw.Connection(str(file))
    try:
        db.set_busy_timeout(30_000)
        db.pragma("synchronous", "OFF")
        machine = db.execute("SELECT machine FROM executions WHERE id = ?", (done["execution_id"],)).get
        first = db.execute("SELECT max(number) + 1 FROM executions").get
        for start in range(first, first + count, BATCH):
            span = (start, min(start + BATCH, first + count) - 1)
            with db:
                for statement, more in zip(_FILL, ((machine, finished), (), (finished,), with_keys), strict=True):
                    db.execute(statement, (*span, *more))
    finally:
        db.close()
