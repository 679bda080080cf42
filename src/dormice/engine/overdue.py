"""Executions that should have ended: their timeout or cancel is over, and their machine says nothing of an end.

Machines keep timeouts and carry out cancels by themselves. One that does not, because its process 1 is stopped or was starved, would
have its executions run for ever and hold it awake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from dormice.domain.execution import Execution, Micros
from dormice.domain.limits import Limits
from dormice.domain.machine import Phase
from dormice.engine.board import LiveMachine

STALL_US = 10_000_000
"""Who has not looked for so long has not listened either: what machines have said meanwhile is still to be heard."""


class Overdue:
    """Remembers since when; all moments are those of the steady clock.

    No time counts while a machine cannot say anything, because its node is away or its guest is not attached to, nor while `owes` says
    that the store has yet to take what it has said of the execution: an end, or output that it keeps until then.
    """

    def __init__(self, limits: Limits, owes: Callable[[LiveMachine, str], bool]) -> None:
        self._owes = owes
        self._grace = limits.cancel_grace_ms * 1000
        self._margin = limits.machine_lost_ms * 1000
        self._seen: dict[tuple[str, bool], Micros] = {}
        """When an execution was first seen with its slot, and when with its cancel."""
        self._late: dict[str, Micros] = {}
        """Since when an execution should have ended."""
        self._looked_at: Micros = 0

    def look(self, machines: Iterable[LiveMachine], now: Micros) -> list[tuple[LiveMachine, Execution]]:
        """Return what should have ended more than `machine_lost_ms` ago. It is returned again after as long once more."""
        stalled = now - self._looked_at > STALL_US
        self._looked_at = now
        seen: dict[tuple[str, bool], Micros] = {}
        late: dict[str, Micros] = {}
        lost = []
        for live, execution, limit in self._limited(machines):
            key = execution.id, execution.cancel_requested_at is not None
            seen[key] = self._seen.get(key, now)
            if not live.attached or now - seen[key] < limit or self._owes(live, execution.id):
                continue
            since = now if stalled else self._late.get(execution.id, now)
            if now - since > self._margin:
                lost.append((live, execution))
            else:
                late[execution.id] = since
        self._seen, self._late = seen, late
        return lost

    def _limited(self, machines: Iterable[LiveMachine]) -> Iterator[tuple[LiveMachine, Execution, int]]:
        """Yield what runs and may not do so for ever, and for how long it may."""
        for live in machines:
            if live.machine.phase is Phase.RUNNING:
                for execution in live.claimed.values():
                    if execution.cancel_requested_at is not None:
                        yield live, execution, self._grace
                    elif execution.timeout_ms:
                        yield live, execution, execution.timeout_ms * 1000
