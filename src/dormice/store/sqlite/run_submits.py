"""Submitting runs: a root, a child, a batch; and a parent that waits for them."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from dormice.domain.run import Run, RunEvent, RunState, WaitKind
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed
from dormice.store.sqlite import idempotency, run_rows, statements
from dormice.store.sqlite.run_unit import RunUnit
from dormice.store.workflows import NewRun, ParentWait, Refused, Submitted

_SQL = statements.load("runs.sql")
_WAITS = statements.load("waits.sql")
_ASKED_TO_END = {RunState.PENDING_CANCEL, RunState.CANCELLED}


def submit(
    db: apsw.Connection, runs: Sequence[NewRun], wait: ParentWait | None, claim: IdempotencyClaim | None
) -> Submitted | Replayed | KeyReused | Refused:
    """Record the runs and the wait."""
    if (answer := idempotency.find(db, claim)) is not None:
        return answer
    unit = RunUnit(db, runs[0].now)
    parent_id = runs[0].parent_id if wait is None else wait.run_id
    parent = None if parent_id is None else unit.load(parent_id)
    if parent_id is not None:
        if parent is None or parent.project_id != runs[0].project_id:
            return Refused()
        if parent.state in _ASKED_TO_END or (parent.terminal and wait is not None):
            return Refused(run=parent)
    if parent is not None and wait is not None and (earlier := _earlier(unit, parent, wait.step_key)):
        _wait_for(unit, parent, wait, earlier)
        return Submitted(runs=earlier, made=False, changed=unit.changed)
    made = [insert(db, new) for new in runs]
    if parent is not None and wait is not None:
        _wait_for(unit, parent, wait, made)
    idempotency.remember(db, claim, ",".join(run.id for run in made))
    return Submitted(runs=made, made=True, changed=[*made, *unit.changed])


def rerun(
    db: apsw.Connection, source: Run, new: NewRun, from_step: str | None, claim: IdempotencyClaim | None
) -> Submitted | Replayed | KeyReused | Refused:
    """Record a run that begins with steps of another one."""
    if (answer := idempotency.find(db, claim)) is not None:
        return answer
    if from_step is not None and not RunUnit(db, new.now).has_step(source, from_step):
        return Refused(run=source)
    made = insert(db, new)
    db.execute(_SQL["copy_steps"], (source.number, made.number, from_step))
    idempotency.remember(db, claim, made.id)
    return Submitted(runs=[made], made=True, changed=[made])


def _earlier(unit: RunUnit, parent: Run, step_key: str) -> list[Run]:
    """Return what a step has made before; nothing if all of that was cancelled, and the step is to be run anew."""
    below = [run_rows.run(row) for row in unit.db.execute(_SQL["made_by"], (parent.id, step_key)).fetchall()]
    alone = below[-1:] if below and below[-1].batch_id is None else below
    made = [run for run in alone if run.batch_id == below[-1].batch_id]
    cancelled = all(run.state is RunState.CANCELLED for run in made)
    return [] if cancelled and not unit.has_step(parent, step_key) else made


def _wait_for(unit: RunUnit, parent: Run, wait: ParentWait, runs: Sequence[Run]) -> None:
    if unit.has_step(parent, wait.step_key):
        # What it waits for has ended meanwhile. It goes on by way of the queue: its worker has let go of it.
        unit.resume(unit.wait(parent))
        return
    remaining = batch = None
    if wait.kind is WaitKind.BATCH:
        remaining = sum(not run.terminal for run in runs)
        batch = (runs[0].batch_id or "").encode()
        if remaining == 0:  # it was not waited for, until now
            unit.end_wait(unit.wait(parent), unit.batch_step(wait.step_key, batch))
            return
    values = (parent.number, wait.step_key, wait.kind.value, None, None, None, remaining, batch, unit.now)
    unit.db.execute(_WAITS["insert"], values)
    unit.wait(parent)


def insert(db: apsw.Connection, new: NewRun) -> Run:
    """Record a run, and its queue when that is used for the first time."""
    db.execute(_SQL["insert_queue"], (new.project_id, new.deployment_id, new.queue_name, new.queue_limit))
    values = (
        new.id,
        new.project_id,
        new.workflow_id,
        new.now,
        new.deployment_id,
        new.queue_name,
        new.concurrency_key,
        new.priority,
        new.not_before,
        new.parent_id,
        new.root_id,
        new.root_workflow_id,
        new.step_key,
        new.batch_id,
        new.session_id,
        new.user_id,
        new.max_retries,
        new.run_timeout_seconds,
    )
    number = db.execute(_SQL["insert"], values).get
    db.execute(_SQL["insert_input"], (number, new.payload, new.initial_state, new.channel_context, new.traceparent))
    made = Run(
        number=number,
        id=new.id,
        project_id=new.project_id,
        workflow_id=new.workflow_id,
        state=RunState.QUEUED,
        revision=1,
        created_at=new.now,
        deployment_id=new.deployment_id,
        queue_name=new.queue_name,
        concurrency_key=new.concurrency_key,
        priority=new.priority,
        not_before=new.not_before,
        parent_id=new.parent_id,
        root_id=new.root_id,
        root_workflow_id=new.root_workflow_id,
        step_key=new.step_key,
        batch_id=new.batch_id,
        session_id=new.session_id,
        user_id=new.user_id,
        max_retries=new.max_retries,
        run_timeout_seconds=new.run_timeout_seconds,
    )
    if new.fault is None:
        return made
    return RunUnit(db, new.now).move(made, RunEvent.FAILED, error=new.fault, completed_at=new.now)
