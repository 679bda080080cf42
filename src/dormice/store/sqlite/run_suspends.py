"""A run that waits for several things together: children, moments, events. It goes on once, after the last of them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import apsw

from dormice.domain.execution import Micros
from dormice.domain.run import Event, Run, WaitKind
from dormice.store.sqlite import events, run_rows, run_submits, run_waits, statements
from dormice.store.sqlite.run_unit import RunUnit
from dormice.store.workflows import Attempt, Due, NewEvent, NewRun, NewWait, Publication, Refused, Suspended

_SQL = statements.load("runs.sql")
_WAITS = statements.load("waits.sql")
_EVENTS = statements.load("events.sql")


def suspend(
    db: apsw.Connection,
    run_id: str,
    attempt: Attempt,
    children: Sequence[NewRun],
    waits: Sequence[NewWait],
    now: Micros,
) -> Suspended | Refused:
    """Record the children and all waits."""
    unit = RunUnit(db, now)
    run = unit.load(run_id)
    if run is None or run.closed or not attempt.holds(run):
        return Refused(run=run)
    run = unit.wait(run)
    made = [child for new in children if (child := _child(unit, run, new)) is not None]
    questions = [
        question for place, wait in enumerate(waits) if (question := _wait(unit, run, wait, place)) is not None
    ]
    told = events.publish_with(unit, run.project_id, questions)
    if not unit.has_waits(run):
        run = unit.resume(run)
    dues = [
        Due(run_id=run.id, step_key=wait.step_key, due_at=row[1])
        for wait in waits
        if (row := db.execute(_WAITS["find"], (run.number, wait.step_key)).get) is not None and row[1] is not None
    ]
    return Suspended(run=run, changed=[*made, *unit.changed], dues=dues, told=told)


def _child(unit: RunUnit, run: Run, new: NewRun) -> Run | None:
    """Have the run wait for a child; return the child if it is new."""
    step_key = new.step_key or ""
    if unit.has_step(run, step_key):
        return None
    values = (run.number, step_key, WaitKind.RUN.value, None, None, None, unit.now)
    unit.db.execute(_WAITS["insert_together"], values)
    earlier = unit.db.execute(_SQL["below"], (run.id, step_key)).fetchone()
    if earlier is None:
        return run_submits.insert(unit.db, new)
    child = run_rows.run(earlier)
    if child.terminal:
        unit.put_step(run, unit.child_step(child, step_key))
        unit.db.execute(_WAITS["delete"], (run.number, step_key))
    return None


def _wait(unit: RunUnit, run: Run, new: NewWait, place: int) -> Publication | None:
    """Have the run wait, after `place` other waits of the report; return what it asks, if it has not asked before."""
    if unit.has_step(run, new.step_key):
        return None
    values = (run.number, new.step_key, new.kind.value, new.due_at, new.topic, new.event_type, unit.now + place)
    unit.db.execute(_WAITS["insert_together"], values)
    is_new = unit.db.changes() > 0
    if new.topic is None:
        return None
    if is_new and new.question is not None:
        asked = NewEvent(id=str(uuid4()), event_type=f"suspend_{new.step_key}", data=new.question, run_id=run.id)
        return Publication(topic=new.topic, event=asked)
    event = _came_before(unit, run, new.topic, new.event_type)
    if event is not None:
        unit.db.execute(_WAITS["set_cursor"], (run.number, event.topic, event.sequence))
        unit.put_step(run, run_waits.event_step(new.step_key, event))
        unit.db.execute(_WAITS["delete"], (run.number, new.step_key))
    return None


def _came_before(unit: RunUnit, run: Run, topic: str, event_type: str | None) -> Event | None:
    """Return the event that a wait was for, if it was published since the run was made and the run was not given it."""
    if event_type is not None:
        return run_waits.answered_before(unit, run, topic, event_type)
    cursor = unit.db.execute(_WAITS["cursor"], (run.number, topic)).get or 0
    row = unit.db.execute(_EVENTS["after"], (run.project_id, topic, cursor, run.created_at - 1, 1)).fetchone()
    return None if row is None else run_rows.event(row)
