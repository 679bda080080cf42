"""What one transaction does to runs: moves of the state table, and what follows from them for the runs around.

Which event is legal is the domain's table alone. A run that ends writes its parent's step, and a parent that waited for it goes on.
"""

from __future__ import annotations

from typing import Any

import apsw
import msgspec
from msgspec.structs import replace

from dormice.domain.execution import Micros
from dormice.domain.run import HELD, NULL, CancelledBy, Json, Run, RunEvent, RunState, Step, WaitKind
from dormice.store.sqlite import run_rows, statements

_SQL = statements.load("runs.sql")
_WAITS = statements.load("waits.sql")
_COMMANDS = statements.load("run_commands.sql")
_encode = msgspec.json.Encoder().encode


class RunUnit:
    """The runs that a transaction changes."""

    def __init__(self, db: apsw.Connection, now: Micros) -> None:
        self.db = db
        self.now = now
        self._changed: dict[str, Run] = {}

    @property
    def changed(self) -> list[Run]:
        """Every run that is different now."""
        return list(self._changed.values())

    def load(self, run_id: str) -> Run | None:
        """Return a run as it is now."""
        row = self.db.execute(_SQL["load"], (run_id,)).get
        return None if row is None else run_rows.run(row)

    def move(self, run: Run, *events: RunEvent, **fields: Any) -> Run:
        """Move the state by events and set fields, in one write; an end is told to the parent. Raises IllegalTransition."""
        moved = self.set(run, state=run.on(*events), **fields)
        if moved.terminal:
            self.db.execute(_WAITS["delete_all"], (moved.number,))
            self.db.execute(_WAITS["delete_cursors"], (moved.number,))
            self._tell_parent(moved)
        return moved

    def set(self, run: Run, **fields: Any) -> Run:
        """Set fields."""
        changed = replace(run, revision=run.revision + 1, **fields)
        values: tuple[Any, ...] = (
            changed.state.value,
            changed.revision,
            changed.not_before,
            changed.started_at,
            changed.running_since,
            changed.worker_id,
            changed.fence,
            changed.retry_count,
            changed.crashes,
            changed.error,
            changed.cancelled_at,
            changed.cancelled_by and changed.cancelled_by.value,
        )
        if changed.terminal:
            self.db.execute(_SQL["save_end"], (*values, changed.completed_at, changed.number))
        else:
            self.db.execute(_SQL["save"], (*values, changed.number))
        self._changed[changed.id] = changed
        return changed

    def put_step(self, run: Run, step: Step) -> None:
        """Record a step."""
        values = (
            step.step_key,
            step.outputs,
            step.error,
            step.success,
            step.source_run_id,
            step.output_schema_name,
            step.completed_at or self.now,
        )
        self.db.execute(_SQL["put_step"], (run.number, *values))

    def has_step(self, run: Run, step_key: str) -> bool:
        """Whether a step is known."""
        return self.db.execute(_SQL["step"], (run.number, step_key)).get is not None

    def end_wait(self, run: Run, step: Step) -> Run:
        """Record what a wait was for, and let the run go on if it waits, and for nothing more."""
        self.put_step(run, step)
        together = self.db.execute(_WAITS["delete"], (run.number, step.step_key)).get
        return run if together and self.has_waits(run) else self.resume(run)

    def has_waits(self, run: Run) -> bool:
        """Whether one of several waits that the run goes on after together has not ended."""
        return self.db.execute(_WAITS["others"], (run.number,)).get is not None

    def resume(self, run: Run) -> Run:
        """Let a run that waits go on; another one stays as it is."""
        return self.move(run, RunEvent.RESUMED, not_before=0) if run.state is RunState.WAITING else run

    def wait(self, run: Run) -> Run:
        """Have a run that a worker has wait. In another state it stays as it is: a second branch of it, or an old attempt, waits too."""
        return self.move(run, RunEvent.WAITED) if run.state in HELD else run

    def cancel_tree(self, run: Run, by: CancelledBy) -> Run:
        """Ask for the end of a run that has not ended, and of all below it; what no worker has is cancelled now."""
        cancelled = self._cancel(run, by)
        query = "open_of_root" if run.root_id is None else "open_below"
        for row in self.db.execute(_SQL[query], (run.id,)).fetchall():
            self._cancel(run_rows.run(row), by)
        return cancelled

    def end_if_nothing_runs(self, run: Run) -> Run:
        """Cancel a run whose end was asked for, once no worker has it and no command of it runs: whoever has it told so sets `worker_id` to None."""
        if run.worker_id is not None or self._has_command(run):
            return run
        return self.move(run, RunEvent.CANCELLED, completed_at=self.now)

    def _cancel(self, run: Run, by: CancelledBy) -> Run:
        if run.state is RunState.PENDING_CANCEL:
            return run
        held = run.state in HELD
        if held or self._has_command(run):
            self.db.execute(_WAITS["delete_all"], (run.number,))
            worker_id = run.worker_id if held else None
            return self.move(
                run, RunEvent.CANCEL_REQUESTED, cancelled_at=self.now, cancelled_by=by, worker_id=worker_id
            )
        return self.move(run, RunEvent.CANCELLED, cancelled_at=self.now, cancelled_by=by, completed_at=self.now)

    def _has_command(self, run: Run) -> bool:
        return self.db.execute(_COMMANDS["has_open"], (run.number,)).get is not None

    def _tell_parent(self, run: Run) -> None:
        if run.parent_id is None or run.step_key is None:
            return
        parent = self.load(run.parent_id)
        if parent is None or parent.closed:
            return
        wait = self.db.execute(_WAITS["find"], (parent.number, run.step_key)).get
        kind = None if wait is None else wait[0]
        if kind == WaitKind.BATCH:
            remaining = self.db.execute(_WAITS["count_down"], (parent.number, run.step_key)).get
            if remaining == 0:
                self.end_wait(parent, self.batch_step(run.step_key, wait[5]))
        elif run.batch_id is None:
            self.end_wait(parent, self.child_step(run, run.step_key))

    def child_step(self, run: Run, step_key: str) -> Step:
        """What a run that has ended is to the run above it."""
        if run.state is not RunState.COMPLETED:
            return Step(
                step_key=step_key, error=_encode({"message": _failure(run)}), success=False, source_run_id=run.id
            )
        result, schema, _ = self.db.execute(_SQL["result"], (run.number,)).fetchone() or (None, None, None)
        return Step(step_key=step_key, outputs=result or NULL, source_run_id=run.id, output_schema_name=schema)

    def batch_step(self, step_key: str, batch: bytes) -> Step:
        """The results of a batch in its order. That one of them failed is for the workflow to judge."""
        outputs = b",".join(
            _member(workflow_id, RunState(state), run_id, error, result, schema)
            for run_id, workflow_id, state, error, result, schema in self.db.execute(
                _SQL["of_batch"], (batch.decode(),)
            )
        )
        return Step(step_key=step_key, outputs=b"[" + outputs + b"]")


def _member(
    workflow_id: str, state: RunState, run_id: str, error: str | None, result: Json | None, schema: str | None
) -> bytes:
    if state is RunState.COMPLETED:
        return _encode(
            {
                "result": msgspec.Raw(result or NULL),
                "result_schema_name": schema,
                "workflow_id": workflow_id,
                "success": True,
            }
        )
    text = f"run {run_id} was cancelled" if state is RunState.CANCELLED else error
    return _encode({"workflow_id": workflow_id, "success": False, "error": text})


def _failure(run: Run) -> str:
    return f"run {run.id} of {run.workflow_id} was cancelled" if run.state is RunState.CANCELLED else run.error or ""
