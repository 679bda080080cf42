"""The port: what the engine asks of the way to a worker that is called (push)."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class PushAnswer(StrEnum):
    """What became of a run that a worker was given."""

    ACCEPTED = "accepted"
    FULL = "full"  # it has as many as it wants
    REFUSED = "refused"  # nobody was reached: certainly not accepted
    MISMATCH = "mismatch"  # another worker listens there
    REJECTED = "rejected"  # an answer that says no
    AMBIGUOUS = "ambiguous"  # no answer, or half of one: it may have been accepted


class CancelAnswer(StrEnum):
    """What became of asking a worker to end a run."""

    REQUESTED = "requested"  # it will say when it has ended
    UNKNOWN = "unknown"  # it does not have it
    FAILED = "failed"  # no answer that says


class Pusher(Protocol):
    """Calls workers. Raises nothing but CancelledError."""

    async def execute(self, url: str, worker_id: str, body: bytes) -> PushAnswer:
        """Give a worker a run."""
        ...

    async def cancel(self, url: str, worker_id: str, run_id: str) -> CancelAnswer:
        """Have a worker end a run."""
        ...

    async def listens(self, url: str, worker_id: str) -> bool:
        """Whether anybody may listen at the address of a worker: False only when its host says that nobody does."""
        ...

    async def held(self, url: str, worker_id: str) -> int | None:
        """Ask a worker how many runs it has; None when it does not say."""
        ...
