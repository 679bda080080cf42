"""How many of what there are at this moment, counted on the board."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dormice.domain.execution import Execution, ExecutionState, Micros
from dormice.domain.machine import Phase
from dormice.engine.board import LiveMachine


@dataclass(frozen=True, slots=True)
class Census:
    """The machines that are not destroyed, and the executions that have not ended."""

    machines: Mapping[Phase, int]
    executions: Mapping[ExecutionState, int]
    oldest_waiting_us: int
    """How long the oldest execution that has not started has existed; 0 where none waits."""


def take_census(board: Iterable[LiveMachine], now: Micros) -> Census:
    """Count. Costs a look at each machine and at what is claimed on it, not at each execution that waits."""
    machines: Counter[Phase] = Counter()
    executions: Counter[ExecutionState] = Counter()
    oldest = now
    for live in board:
        machines[live.machine.phase] += 1
        executions[ExecutionState.QUEUED] += len(live.queue)
        executions[ExecutionState.WAKE_IN_PROGRESS] += len(live.waking)
        executions.update(execution.state for execution in live.claimed.values())
        oldest = min(oldest, *(execution.created_at for execution in _first(live)), now)
    return Census(machines, executions, now - oldest)


def _first(live: LiveMachine) -> Iterator[Execution]:
    """Yield those among which the oldest that waits is: queues are in order of creation."""
    for queue in (live.queue, live.waking):
        if queue:
            yield next(iter(queue.values()))
    for execution in live.claimed.values():
        if execution.started_at is None:
            yield execution
