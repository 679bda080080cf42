"""The port of the store for SSH sessions. The rules of interface.py hold here too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from dormice.domain.execution import Micros
from dormice.domain.ssh import SshEvent, SshSession, SshState
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSshSession:
    """What `SshSessionStore.create` needs."""

    id: str
    organization_id: str
    machine_id: str
    created_by: str
    """The id of an API key."""
    certificate: str
    now: Micros
    expires_at: Micros
    ready: bool
    """True: enters `ready`; False: `wake_in_progress`."""


@dataclass(frozen=True, slots=True)
class TooManySshSessions:
    """The machine has as many open ones as it may have."""


class SshSessionStore(Protocol):
    """SSH sessions."""

    async def create(
        self, new: NewSshSession, claim: IdempotencyClaim | None, *, most: int
    ) -> SshSession | Replayed | KeyReused | TooManySshSessions:
        """Record a session: one of at most `most` of its machine that are open and not over."""
        ...

    async def get(self, organization_id: str, machine_id: str, session_id: str) -> SshSession | None:
        """Return a session of that machine of that organization."""
        ...

    async def find(self, session_id: str) -> SshSession | None:
        """Return a session, whosever it is: for whoever can show its certificate."""
        ...

    async def page(self, organization_id: str, machine_id: str, *, before: int | None, limit: int) -> list[SshSession]:
        """Newest first, numbers below `before`."""
        ...

    async def open(self, now: Micros) -> Mapping[SshState, int]:
        """How many sessions of machines that are not destroyed are in each state that is no end, and not over at `now`."""
        ...

    async def advance(
        self, session: SshSession, event: SshEvent, now: Micros, *, error_message: str | None = None
    ) -> SshSession | None:
        """Move a session by `event`, if it still is in the state of `session`; else return it as it is, None when it is gone.

        Raises IllegalTransition, having changed nothing.
        """
        ...
