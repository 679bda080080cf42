"""Waits: for a moment, for an event. What is waited for may have come just before."""

from __future__ import annotations

import apsw
import msgspec

from dormice.domain.execution import Micros
from dormice.domain.moments import rfc3339
from dormice.domain.run import Event, Run, Step, WaitKind
from dormice.store.sqlite import run_rows, statements
from dormice.store.sqlite.run_unit import RunUnit
from dormice.store.workflows import Attempt, Moved, NewWait, Refused, Waited

_WAITS = statements.load("waits.sql")
_EVENTS = statements.load("events.sql")
_encode = msgspec.json.Encoder().encode


def wait(
    db: apsw.Connection, run_id: str, attempt: Attempt, new: NewWait, now: Micros, steady: Micros
) -> Waited | Refused:
    """Have a run wait."""
    unit = RunUnit(db, now)
    run = unit.load(run_id)
    if run is None or run.closed or not attempt.holds(run):
        return Refused(run=run)
    if unit.has_step(run, new.step_key):
        return Waited(run=unit.resume(unit.wait(run)), changed=unit.changed)
    values = (run.number, new.step_key, new.kind.value, new.due_at, new.topic, new.event_type, None, None, now)
    db.execute(_WAITS["insert"], values)
    waiting = unit.wait(run)
    event = _came_before(unit, run, new, steady)
    if event is not None:
        return Waited(run=deliver(unit, waiting, new.step_key, event), changed=unit.changed)
    kept = db.execute(_WAITS["find"], (run.number, new.step_key)).get
    return Waited(run=waiting, changed=unit.changed, due_at=kept[1])


def deliver(unit: RunUnit, run: Run, step_key: str, event: Event) -> Run:
    """Give a wait the event that it was for."""
    unit.db.execute(_WAITS["set_cursor"], (run.number, event.topic, event.sequence))
    return unit.end_wait(run, event_step(step_key, event))


def event_step(step_key: str, event: Event) -> Step:
    """What a wait was for."""
    return Step(step_key=step_key, outputs=event.document())


def expire(db: apsw.Connection, run_id: str, step_key: str, now: Micros) -> Moved | Refused:
    """End a wait whose moment has come."""
    unit = RunUnit(db, now)
    run = unit.load(run_id)
    row = None if run is None else db.execute(_WAITS["find"], (run.number, step_key)).get
    if run is None or row is None or row[1] is None or row[1] > now:
        return Refused(run=run)
    kind, due_at = WaitKind(row[0]), row[1]
    if kind is WaitKind.TIME:
        step = Step(step_key=step_key, outputs=_encode({"success": True, "wait_until": rfc3339(due_at)}))
    else:
        what = "Suspend" if kind is WaitKind.SUSPEND else "Event"
        error = {"message": f"{what} wait expired at {rfc3339(due_at)}"}
        step = Step(step_key=step_key, error=_encode(error), success=False)
    return Moved(run=unit.end_wait(run, step), changed=unit.changed)


def answered_before(unit: RunUnit, run: Run, topic: str, event_type: str) -> Event | None:
    """Return the answer, a `resume_…`, to what a run has asked, if it came before its wait was known."""
    asked_for = event_type.replace("resume_", "suspend_", 1)
    since = unit.db.execute(_EVENTS["suspended"], (run.project_id, topic, asked_for, run.id)).get
    if since is None:
        since = unit.db.execute(_EVENTS["suspended_by_anybody"], (run.project_id, topic, asked_for)).get
    if since is None:
        return None
    row = unit.db.execute(_EVENTS["resumed"], (run.project_id, topic, since, event_type, run.id)).fetchone()
    return None if row is None else run_rows.event(row)


def _came_before(unit: RunUnit, run: Run, new: NewWait, steady: Micros) -> Event | None:
    """Return the event that a wait was for, if it was published before the wait was known.

    A worker publishes `suspend_…` first, and an answer may come before its wait does. Of other topics, a run is given what
    came after the last event that it was given, or since its last attempt began, and never what it has published itself.
    """
    if new.topic is None:
        return None
    if new.kind is WaitKind.SUSPEND and new.event_type is not None:
        return answered_before(unit, run, new.topic, new.event_type)
    cursor = unit.db.execute(_WAITS["cursor"], (run.number, new.topic)).get
    ran_for = 0 if run.running_since is None else steady - run.running_since
    since_at = 0 if cursor is not None else unit.now - ran_for
    values = (run.project_id, new.topic, cursor or 0, since_at, run.id)
    row = unit.db.execute(_EVENTS["of_others"], values).fetchone()
    return None if row is None else run_rows.event(row)
