"""A terminal: a shell on a pseudo terminal of a machine. It is an execution, shown in another way."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from dormice.domain.execution import Execution, ExecutionState, Micros

LARGEST_SIDE = 65_535
"""Columns or rows: the kernel counts them in 16 bits."""


class TerminalStatus(StrEnum):
    """What a client sees (`contract` section 2.4)."""

    WAKE_IN_PROGRESS = "wake_in_progress"
    READY = "ready"
    CLOSED = "closed"
    EXPIRED = "expired"
    FAILED = "failed"


_S, _E = TerminalStatus, ExecutionState

STATUS: Mapping[ExecutionState, TerminalStatus] = {
    _E.WAKE_IN_PROGRESS: _S.WAKE_IN_PROGRESS,
    _E.QUEUED: _S.WAKE_IN_PROGRESS,
    _E.RUNNING: _S.READY,
    _E.SUCCEEDED: _S.CLOSED,
    _E.FAILED: _S.CLOSED,  # or failed, when it never started
    _E.CANCELLED: _S.CLOSED,
    _E.EXPIRED: _S.EXPIRED,
}


class Terminal(Struct, frozen=True, kw_only=True):
    """One terminal as the store knows it."""

    id: str
    width: int
    """Columns, as last asked for."""
    height: int
    """Rows."""
    execution: Execution

    @property
    def number(self) -> int:
        """Orders lists and cursors."""
        return self.execution.number

    @property
    def created_at(self) -> Micros:
        """When it was asked for."""
        return self.execution.created_at

    @property
    def status(self) -> TerminalStatus:
        """Where it is."""
        if self.execution.state is ExecutionState.FAILED and self.execution.started_at is None:
            return TerminalStatus.FAILED
        return STATUS[self.execution.state]
