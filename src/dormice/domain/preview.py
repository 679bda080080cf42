"""A preview: an address under which a port of a machine is served, its states, and how they follow one another.

Rules for editing: as in execution.py. Words are wire format (contract section 2.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dormice.domain.execution import ErrorCode, Micros
from dormice.domain.transitions import follow


class Visibility(StrEnum):
    """Who may open it."""

    PRIVATE = "private"  # the key that made it, and whoever holds a link made with that key
    ORG = "org"  # every key of the organization, and whoever holds a link made with one
    PUBLIC = "public"  # whoever knows its id, which cannot be guessed


class PreviewProtocol(StrEnum):
    """What is spoken with the port."""

    HTTP = "http"
    HTTPS = "https"  # TLS; the certificate is not checked, as nothing lies between us and the port


class PreviewState(StrEnum):
    """Where it is."""

    WAKE_IN_PROGRESS = "wake_in_progress"
    READY = "ready"  # served; its machine may sleep again, and is then woken by who opens it
    CLOSED = "closed"  # deleted, or its machine was
    EXPIRED = "expired"  # its time is over, or its machine did not wake in time
    FAILED = "failed"  # its machine could not be started


class PreviewEvent(StrEnum):
    """What can happen to it."""

    AWAKE = "awake"
    WAKE_FAILED = "wake_failed"
    CLOSE = "close"
    EXPIRE = "expire"


_S, _E = PreviewState, PreviewEvent

TRANSITIONS: Mapping[PreviewState, Mapping[PreviewEvent, PreviewState]] = {
    _S.WAKE_IN_PROGRESS: {
        _E.AWAKE: _S.READY,
        _E.WAKE_FAILED: _S.FAILED,
        _E.CLOSE: _S.CLOSED,
        _E.EXPIRE: _S.EXPIRED,
    },
    _S.READY: {_E.CLOSE: _S.CLOSED, _E.EXPIRE: _S.EXPIRED},
    _S.CLOSED: {},
    _S.EXPIRED: {},
    _S.FAILED: {},
}

TERMINAL = frozenset(state for state, row in TRANSITIONS.items() if not row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """One preview as the store knows it."""

    number: int
    """The store's own ordinal: orders lists and cursors."""
    id: str
    organization_id: str
    machine_id: str
    created_by: str
    """The key that made it."""
    port: int
    """From 1 to 65,535, on the machine's loopback."""
    protocol: PreviewProtocol
    visibility: Visibility
    state: PreviewState
    created_at: Micros
    expires_at: Micros
    """By the steady clock."""
    ready_at: Micros | None = None
    ended_at: Micros | None = None
    error_code: ErrorCode | None = None
    error_message: str | None = None

    @property
    def terminal(self) -> bool:
        """Whether it has ended: nothing changes any more."""
        return self.state in TERMINAL

    def on(self, event: PreviewEvent) -> PreviewState:
        """Return the state that `event` leads to. Raises IllegalTransition."""
        return follow(TRANSITIONS, self.state, event)
