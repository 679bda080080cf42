"""How an attempt or a run ends: released, completed, failed, cancelled."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from dormice.domain.execution import Micros
from dormice.domain.run import HELD, CancelledBy, Json, Run, RunEvent, RunState
from dormice.store.sqlite import events, statements
from dormice.store.sqlite.run_unit import RunUnit
from dormice.store.workflows import Attempt, Moved, Publication, Refused, RunResult

_SQL = statements.load("runs.sql")
_WORKED_ON = HELD | {RunState.WAITING}


def release(
    db: apsw.Connection, run_id: str, fence: int, now: Micros, not_before: Micros, *, crashed: bool, most_crashes: int
) -> Moved | Refused:
    """Put it back into its queue."""
    unit = RunUnit(db, now)
    run = unit.load(run_id)
    if run is None or run.state not in HELD or run.fence != fence:
        return Refused(run=run)
    crashes = run.crashes + crashed
    if crashes > most_crashes:
        error = f"given up: {crashes} workers were lost, or gave up, while they ran it"
        ended = unit.move(run, RunEvent.FAILED, crashes=crashes, error=error, completed_at=now)
        return Moved(run=ended, changed=unit.changed)
    released = unit.move(run, RunEvent.RELEASED, worker_id=None, crashes=crashes, not_before=not_before)
    return Moved(run=released, changed=unit.changed)


def complete(
    db: apsw.Connection,
    run_id: str,
    attempt: Attempt,
    result: RunResult,
    publications: Sequence[Publication],
    now: Micros,
) -> Moved | Refused:
    """End it well."""
    unit = RunUnit(db, now)
    run = unit.load(run_id)
    if (answer := _settled(unit, run, attempt, RunState.COMPLETED)) is not None:
        return answer
    assert run is not None  # noqa: S101 - settled otherwise
    values = (run.number, result.result, result.output_schema_name, result.final_state)
    db.execute(_SQL["put_result"], values)
    ended = unit.move(run, RunEvent.COMPLETED, error=None, completed_at=now)
    told = events.publish_with(unit, run.project_id, publications)
    return Moved(run=ended, changed=unit.changed, told=told)


def fail(
    db: apsw.Connection,
    run_id: str,
    attempt: Attempt,
    error: str,
    *,
    retryable: bool,
    not_before: Micros,
    final_state: Json | None,
    now: Micros,
) -> Moved | Refused:
    """End an attempt badly."""
    unit = RunUnit(db, now)
    run = unit.load(run_id)
    if (answer := _settled(unit, run, attempt, RunState.FAILED)) is not None:
        return answer
    assert run is not None  # noqa: S101 - settled otherwise
    failures = run.retry_count + 1
    if retryable and failures <= run.max_retries:
        again = unit.move(
            run, RunEvent.RETRIED, retry_count=failures, error=error, worker_id=None, not_before=not_before
        )
        return Moved(run=again, changed=unit.changed)
    if final_state is not None:
        db.execute(_SQL["put_result"], (run.number, None, None, final_state))
    ended = unit.move(run, RunEvent.FAILED, retry_count=failures, error=error, completed_at=now)
    return Moved(run=ended, changed=unit.changed)


def _settled(unit: RunUnit, run: Run | None, attempt: Attempt, wanted: RunState) -> Moved | Refused | None:
    """Answer a report that changes nothing; None when it counts."""
    if run is None:
        return Refused()
    if not attempt.holds(run):
        return Refused(run=run)
    if run.state is wanted:
        return Moved(run=run)
    if run.state is RunState.PENDING_CANCEL:  # however it went: its end was asked for, and it has ended
        ended = unit.end_if_nothing_runs(unit.set(run, worker_id=None))
        return Refused(run=ended, changed=unit.changed)
    return None if run.state in _WORKED_ON else Refused(run=run)


def request_cancel(db: apsw.Connection, project_id: str, run_id: str, by: CancelledBy, now: Micros) -> Moved | Refused:
    """Ask for the end of a tree."""
    unit = RunUnit(db, now)
    run = unit.load(run_id)
    if run is None or run.project_id != project_id:
        return Refused()
    if run.terminal:
        return Refused(run=run)
    asked = unit.cancel_tree(run, by)
    return Moved(run=asked, changed=unit.changed)


def cancelled(
    db: apsw.Connection, run_id: str, attempt: Attempt, by: CancelledBy | None, now: Micros
) -> Moved | Refused:
    """What ran of it has ended."""
    unit = RunUnit(db, now)
    run = unit.load(run_id)
    if run is None or not attempt.holds(run):
        return Refused(run=run)
    if run.state is RunState.CANCELLED:
        return Moved(run=run)
    if run.state is RunState.PENDING_CANCEL:
        asked = run
    elif by is not None and run.state in HELD:
        asked = unit.cancel_tree(run, by)
    else:
        return Refused(run=run)
    if asked.worker_id is not None:
        asked = unit.set(asked, worker_id=None)
    return Moved(run=unit.end_if_nothing_runs(asked), changed=unit.changed)
