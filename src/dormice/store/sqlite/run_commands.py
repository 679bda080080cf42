"""Commands on machines that are steps of runs: begun, and made to wait for, in one transaction."""

from __future__ import annotations

import apsw
import msgspec

from dormice.domain.execution import Execution, Micros
from dormice.domain.moments import rfc3339
from dormice.domain.run import RunState, Step, WaitKind
from dormice.store.interface import NewExecution
from dormice.store.sealing import Sealer
from dormice.store.sqlite import executions, statements
from dormice.store.sqlite.run_unit import RunUnit
from dormice.store.workflows import Attempt, CommandBegun, Moved, Refused

_SQL = statements.load("run_commands.sql")
_WAITS = statements.load("waits.sql")
_encode = msgspec.json.Encoder().encode


def begin(
    db: apsw.Connection, sealer: Sealer, run_id: str, attempt: Attempt, step_key: str, new: NewExecution
) -> CommandBegun | Refused:
    """Record the command, unless the step has one, and have the run wait for it."""
    unit = RunUnit(db, new.now)
    run = unit.load(run_id)
    if run is None or run.closed or not attempt.holds(run):
        return Refused(run=run)
    if unit.has_step(run, step_key):
        run = unit.wait(run)
        run = run if unit.has_waits(run) else unit.resume(run)
        return CommandBegun(run=run, execution=None, changed=unit.changed)
    execution = None
    if db.execute(_SQL["find"], (run.number, step_key)).get is None:
        made = executions.create(db, sealer, new, None)
        if not isinstance(made, Execution):
            raise TypeError("a command without an idempotency key was answered from one")
        execution = made
        db.execute(_SQL["insert"], (run.number, step_key, execution.id))
    values = (run.number, step_key, WaitKind.EXECUTION.value, None, None, None, new.now)
    db.execute(_WAITS["insert_together"], values)
    return CommandBegun(run=unit.wait(run), execution=execution, changed=unit.changed)


def end(db: apsw.Connection, execution_id: str, now: Micros) -> Moved | Refused:
    """Give a run the record of its command that has ended."""
    unit = RunUnit(db, now)
    owner = db.execute(_SQL["of_execution"], (execution_id,)).fetchone()
    execution = executions.load(db, execution_id)
    if owner is None or execution is None or not execution.terminal:
        return Refused()
    db.execute(_SQL["close"], (execution_id,))
    run = unit.load(str(owner[0]))
    if run is None or run.terminal:
        return Refused(run=run)
    if run.state is RunState.PENDING_CANCEL:
        return Moved(run=unit.end_if_nothing_runs(run), changed=unit.changed)
    step = Step(step_key=str(owner[1]), outputs=record(execution))
    return Moved(run=unit.end_wait(run, step), changed=unit.changed)


def record(execution: Execution) -> bytes:
    """What a workflow is given of a command that has ended. Its output is read by the offsets."""
    code = execution.error_code
    return _encode(
        {
            "execution_id": execution.id,
            "machine_id": execution.machine_id,
            "status": execution.state.value,
            "exit_code": execution.exit_code,
            "signal": execution.signal,
            "error_code": code and code.value,
            "error_message": execution.error_message,
            "stdout_bytes": execution.stdout_bytes,
            "stderr_bytes": execution.stderr_bytes,
            "stdout_kept_bytes": execution.stdout_kept,
            "stderr_kept_bytes": execution.stderr_kept,
            "last_sequence": execution.last_sequence,
            "created_at": rfc3339(execution.created_at),
            "started_at": None if execution.started_at is None else rfc3339(execution.started_at),
            "completed_at": None if execution.completed_at is None else rfc3339(execution.completed_at),
        }
    )
