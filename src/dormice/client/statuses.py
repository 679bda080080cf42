"""The words in which an execution's status ends."""

from __future__ import annotations

from typing import Final

FINISHED: Final = frozenset({"succeeded", "failed", "cancelled", "expired"})
"""The statuses in which an execution has ended; the others are wake_in_progress, queued and running."""
