"""What the runs that wait are waiting for, counted by kind: the store is not asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from dormice.domain.run import WaitKind


class OpenWaits:
    """A wait counts until its run goes on: of several waits together, each until the last of them has ended."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, WaitKind]] = {}
        self.kinds: Counter[WaitKind] = Counter()

    def begin(self, run_id: str, waits: Mapping[str, WaitKind]) -> None:
        """Count waits of a run that waits, by their steps; a step that is known counts once."""
        known = self._of.setdefault(run_id, {})
        self.kinds.update(kind for step_key, kind in waits.items() if step_key not in known)
        known.update(waits)

    def end(self, run_id: str) -> None:
        """Forget the waits of a run that does not wait any more."""
        if (waits := self._of.pop(run_id, None)) is not None:
            self.kinds.subtract(waits.values())
