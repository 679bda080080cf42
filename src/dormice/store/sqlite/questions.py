"""What a suspended run asks, and whether it still waits for the answer."""

from __future__ import annotations

from typing import Any

import apsw

from dormice.domain.run import Event
from dormice.store.sqlite import run_rows, statements
from dormice.store.sqlite.run_unit import RunUnit
from dormice.store.workflows import Question

_EVENTS = statements.load("events.sql")
_WAITS = statements.load("waits.sql")


def find(db: apsw.Connection, project_id: str, topic: str, step_key: str, run_id: str | None) -> Question:
    """Return what is asked at a step, by the run or by any run of the topic."""
    row = db.execute(_EVENTS["asked"], (project_id, topic, f"suspend_{step_key}")).fetchone()
    asked = None if row is None else run_rows.event(row)
    answer = f"resume_{step_key}"
    waiting: list[Any] = [found for (found,) in db.execute(_WAITS["for_answer"], (topic, answer, project_id))]
    if waiting if run_id is None else run_id in waiting:
        return Question(pending=True, asked=asked)
    if asked is None:
        return Question(pending=False)
    values = (project_id, topic, asked.sequence, answer)
    if db.execute(_EVENTS["resumed"], values).fetchone() is not None:
        return Question(pending=False, asked=asked, answered=True)
    return Question(pending=_on_its_way(db, project_id, step_key, run_id, asked), asked=asked)


def _on_its_way(db: apsw.Connection, project_id: str, step_key: str, run_id: str | None, asked: Event) -> bool:
    """Whether the run that asked has not come to its wait yet: a worker publishes the event first."""
    if asked.run_id is None or run_id not in (None, asked.run_id):
        return False
    unit = RunUnit(db, asked.created_at)
    run = unit.load(asked.run_id)
    if run is None or run.project_id != project_id or run.closed:
        return False
    return not unit.has_step(run, step_key)
