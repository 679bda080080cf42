"""What the server answers of runs. Fields that this version does not know are passed over."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

FINISHED = frozenset({"completed", "failed", "cancelled"})


class WorkflowRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run: asked for, under way or ended."""

    id: str
    workflow_id: str
    status: str
    """queued, claimed, running, waiting, pending_cancel, completed, failed or cancelled."""
    payload: Any = None
    """None, as `result` is, in lists."""
    result: Any = None
    error: str | None = None
    """Why it failed; while it is tried again, why the attempt before did."""
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    deployment_id: str | None = None
    assigned_to_worker: str | None = None
    parent_execution_id: str | None = None
    root_execution_id: str | None = None
    retry_count: int = 0
    step_key: str | None = None
    queue_name: str | None = None
    concurrency_key: str | None = None
    batch_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    cancelled_at: datetime | None = None
    cancelled_by: str | None = None
    run_timeout_seconds: int | None = None

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.status in FINISHED


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    """Runs, the newest first."""

    executions: list[WorkflowRun]
    next_cursor: str | None = None
    """Where the next page begins; None: this is the last one. A page may be empty and not the last."""


class CommandResult(msgspec.Struct, frozen=True, kw_only=True):
    """A command that has ended, as a step. Its output is read with `Dormice().machines.executions`, by its ids."""

    execution_id: str
    machine_id: str
    status: str
    """succeeded, failed, cancelled or expired."""
    exit_code: int | None = None
    signal: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    stdout_bytes: int = 0
    """Bytes that the process wrote, kept or not."""
    stderr_bytes: int = 0
    stdout_kept_bytes: int = 0
    stderr_kept_bytes: int = 0
    last_sequence: int = 0
    """The last entry of its log."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.status == "succeeded"


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A run that was asked for."""

    execution_id: str
    created_at: datetime
    execution: WorkflowRun | None = None
    """As it is after the wait that was asked for, too."""


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """Events that were published."""

    sequence_ids: list[int]
