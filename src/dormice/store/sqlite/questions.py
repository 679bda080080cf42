"""What a suspended run asks, and whether it still waits for the answer."""

from __future__ import annotations

import apsw

from dormice.domain.run import Event
from dormice.store.sqlite import run_rows, statements
from dormice.store.sqlite.run_unit import RunUnit
from dormice.store.workflows import Question

_EVENTS = statements.load("events.sql")
_WAITS = statements.load("waits.sql")


def find(db: apsw.Connection, project_id: str, topic: str, step_key: str, run_id: str | None) -> Question:
    """Return what is asked at a step, by the run or by any run of the topic."""
    question, answer = f"suspend_{step_key}", f"resume_{step_key}"
    if run_id is None and (asked := _event(db, "open_question", project_id, topic, question, step_key)) is not None:
        return Question(pending=True, asked=asked, run_id=asked.run_id)
    if run_id is None:
        asked = _event(db, "asked", project_id, topic, question)
    else:
        asked = _event(db, "asked_by", project_id, topic, question, run_id)
    if db.execute(_WAITS["for_answer"], (topic, answer, project_id, run_id)).get is not None:
        return Question(pending=True, asked=asked, run_id=run_id)
    if asked is None:
        return Question(pending=False)
    asker = run_id or asked.run_id
    if _event(db, "resumed", project_id, topic, asked.sequence, answer, asker) is not None:
        return Question(pending=False, asked=asked, answered=True)
    return Question(pending=_on_its_way(db, project_id, step_key, asked), asked=asked, run_id=asker)


def _event(db: apsw.Connection, query: str, *values: str | int | None) -> Event | None:
    row = db.execute(_EVENTS[query], values).fetchone()
    return None if row is None else run_rows.event(row)


def _on_its_way(db: apsw.Connection, project_id: str, step_key: str, asked: Event) -> bool:
    """Whether the run that asked has not come to its wait yet: a worker publishes the event first."""
    if asked.run_id is None:
        return False
    unit = RunUnit(db, asked.created_at)
    run = unit.load(asked.run_id)
    if run is None or run.project_id != project_id or run.closed:
        return False
    return not unit.has_step(run, step_key)
