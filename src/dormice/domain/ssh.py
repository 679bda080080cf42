"""An SSH session: the right to log in to one machine with one key for a time, and how far it is.

Rules for editing: as in execution.py. Words are wire format (contract section 2.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from dormice.domain.execution import Micros
from dormice.domain.transitions import follow


class SshState(StrEnum):
    """The five states that a client sees."""

    WAKE_IN_PROGRESS = "wake_in_progress"  # its machine is being brought up
    READY = "ready"  # its certificate is taken
    CLOSED = "closed"  # somebody has deleted it, or its machine, or has revoked the key that made it
    EXPIRED = "expired"  # its time is over
    FAILED = "failed"  # its machine could not be brought up


class SshEvent(StrEnum):
    """What can happen to an SSH session."""

    MACHINE_READY = "machine_ready"
    WAKE_FAILED = "wake_failed"
    CLOSED = "closed"
    EXPIRED = "expired"


_S, _E = SshState, SshEvent

TRANSITIONS: Mapping[SshState, Mapping[SshEvent, SshState]] = {
    _S.WAKE_IN_PROGRESS: {
        _E.MACHINE_READY: _S.READY,
        _E.WAKE_FAILED: _S.FAILED,
        _E.CLOSED: _S.CLOSED,
        _E.EXPIRED: _S.EXPIRED,
    },
    _S.READY: {_E.CLOSED: _S.CLOSED, _E.EXPIRED: _S.EXPIRED},
    _S.CLOSED: {},
    _S.EXPIRED: {},
    _S.FAILED: {},
}


class SshSession(Struct, frozen=True, kw_only=True):
    """One SSH session as the store knows it. Nothing of it is secret: the private key never leaves its owner."""

    number: int
    """The store's own ordinal: orders lists and cursors."""
    id: str
    """Also the name to log in with, the certificate's principal and its key id."""
    organization_id: str
    machine_id: str
    state: SshState
    certificate: str
    """What the user's key is accepted for: one line of the form that OpenSSH reads."""
    created_by: str
    """The id of the API key that made it, with which it ends; empty where an earlier release has made it."""
    created_at: Micros
    expires_at: Micros
    """The moment from which nobody may log in with it. Who is logged in may stay."""
    ready_at: Micros | None = None
    error_message: str | None = None
    """Why it has failed."""

    @property
    def terminal(self) -> bool:
        """Whether it can never be used again."""
        return not TRANSITIONS[self.state]

    def on(self, event: SshEvent) -> SshState:
        """Return the state that `event` leads to. Raises IllegalTransition."""
        return follow(TRANSITIONS, self.state, event)
