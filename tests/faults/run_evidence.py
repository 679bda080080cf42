"""Collects what the checker of runs judges: the rows of the store, and the marks."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import closing, suppress
from pathlib import Path

import apsw

from tests.faults.run_history import FoundRun, RunHistory
from tests.faults.run_marks import Marks
from tests.faults.stack import Victim
from tests.wait import wait_until

REST_SECONDS = 30.0
_RUNS = """
SELECT r.id, r.workflow_id, r.state, r.error, r.crashes, r.parent_id, r.step_key, r.batch_id, i.payload, o.result,
    (SELECT count(*) FROM waits w WHERE w.run = r.number),
    (SELECT count(*) FROM run_commands c WHERE c.run = r.number AND c.open)
FROM runs r JOIN run_inputs i ON i.run = r.number LEFT JOIN run_results o ON o.run = r.number ORDER BY r.number
"""
_STEPS = "SELECT r.id, s.step_key FROM steps s JOIN runs r ON r.number = s.run"
_OPEN = "SELECT count(*) FROM runs WHERE completed_at IS NULL"


def collect_runs(victim: Victim, history: RunHistory, marks: Path) -> None:
    """Take in everything, once all runs have ended or none will any more."""
    path = str(victim.live.data / "server" / "dormice.sqlite3")
    with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as db:
        db.set_busy_timeout(5_000)
        with suppress(AssertionError):  # what never ends is found below
            wait_until(lambda: db.execute(_OPEN).get == 0, REST_SECONDS, "every run has ended")
        history.found = _runs(db)
    history.marks = Marks(marks).read()


def _runs(db: apsw.Connection) -> list[FoundRun]:
    steps: dict[str, list[str]] = defaultdict(list)
    for run_id, key in db.execute(_STEPS):
        steps[run_id].append(key)
    return [
        FoundRun(
            id=row[0],
            token=json.loads(row[8])["token"],
            flow=row[1],
            state=row[2],
            error=row[3],
            crashes=row[4],
            parent_id=row[5],
            step_key=row[6],
            batch_id=row[7],
            result=None if row[9] is None else json.loads(row[9]),
            waits=row[10],
            open_commands=row[11],
            steps=tuple(steps[row[0]]),
        )
        for row in db.execute(_RUNS)
    ]
