"""The words in which the status of an execution, or of a run, ends."""

from __future__ import annotations

from typing import Final

FINISHED: Final = frozenset({"succeeded", "failed", "cancelled", "expired"})
"""The statuses in which an execution has ended; the others are wake_in_progress, queued and running."""

FINISHED_RUN: Final = frozenset({"completed", "failed", "cancelled"})
"""The statuses in which a run has ended; the others are queued, claimed, running, waiting and pending_cancel."""
