"""Collects what the checker judges: the rows of the store, and the marks that commands have left."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import closing, suppress

import apsw

from tests.faults.history import STEADY, Entry, Found, History
from tests.faults.load import MARKS
from tests.faults.stack import Victim
from tests.live import Api
from tests.wait import wait_until

REST_SECONDS = 30.0
_EXECUTIONS = """
SELECT number, id, machine_id, command, state, error_code, created_at, started_at, completed_at,
    stdout_bytes, stderr_bytes, stdout_kept, stderr_kept FROM execution_records
WHERE id NOT IN (SELECT execution_id FROM run_commands) ORDER BY number
"""
"""Commands of runs are judged with the runs."""
_LOG = 'SELECT execution, sequence, at, state, stream, "offset", data FROM log ORDER BY execution, sequence'
_MACHINES = "SELECT id, phase FROM machines ORDER BY number"
_OPEN = "SELECT count(*) FROM executions WHERE completed_at IS NULL"


def collect(victim: Victim, history: History) -> None:
    """Take in everything, once all has come to rest or nothing will."""
    path = str(victim.live.data / "server" / "dormice.sqlite3")
    with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as db:
        db.set_busy_timeout(5_000)
        with suppress(AssertionError):  # what never comes to rest is found below
            wait_until(lambda: _at_rest(db), REST_SECONDS, "everything at rest")
        history.integrity = [text for (text,) in db.execute("PRAGMA integrity_check")]
        history.machines = dict(db.execute(_MACHINES))
        history.found = _executions(db)
    for text in _marks(victim, history):
        history.marks.update((token, mark) for token, mark in (line.split() for line in text.splitlines()))


def _at_rest(db: apsw.Connection) -> bool:
    return db.execute(_OPEN).get == 0 and all(phase in STEADY for _, phase in db.execute(_MACHINES))


def _executions(db: apsw.Connection) -> list[Found]:
    logs: dict[int, list[Entry]] = defaultdict(list)
    for number, sequence, at, state, stream, offset, data in db.execute(_LOG):
        logs[number].append(Entry(sequence, at, state, stream, offset or 0, data or b""))
    return [
        Found(
            id=row[1],
            token=json.loads(row[3])[4],
            machine_id=row[2],
            state=row[4],
            error_code=row[5],
            created_at=row[6],
            started_at=row[7],
            completed_at=row[8],
            written=(row[9], row[10]),
            kept=(row[11], row[12]),
            log=tuple(logs[row[0]]),
        )
        for row in db.execute(_EXECUTIONS)
    ]


def _marks(victim: Victim, history: History) -> list[str]:
    if victim.live.driver == "process":
        return [file.read_text() for file in victim.marks.iterdir()]
    with victim.live.client() as api:
        there = [machine for machine, phase in history.machines.items() if phase not in {"destroyed", "failed"}]
        return [_read(api, machine) for machine in there]


def _read(api: Api, machine: str) -> str:
    """By the file API: of output no more is kept than the load is to meet the limit of."""
    api.shell(machine, f"touch {MARKS}")
    found = api.get(f"/v1/machines/{machine}/files", params={"path": MARKS})
    return found.raise_for_status().text
