"""How many of what there are at this moment, counted on the board, or in the store what the engine does not remember."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dormice.domain.execution import Execution, ExecutionState, Micros
from dormice.domain.machine import Phase
from dormice.domain.preview import PreviewState
from dormice.domain.ssh import SshState
from dormice.engine.board import LiveMachine
from dormice.engine.clock import Clock
from dormice.store.interface import Store


@dataclass(frozen=True, slots=True)
class Census:
    """The machines that are not destroyed, and the executions that have not ended."""

    machines: Mapping[Phase, int]
    executions: Mapping[ExecutionState, int]
    oldest_waiting_us: int
    """How long the oldest execution that has not started has existed; 0 where none waits."""
    terminals: int
    """Of the executions those that are terminals and hold a slot."""


@dataclass(frozen=True, slots=True)
class StoredCensus:
    """The SSH sessions and previews that are not over, and what is to be sent to webhooks."""

    ssh_sessions: Mapping[SshState, int]
    previews: Mapping[PreviewState, int]
    deliveries: int
    """Those that are pending, of enabled webhooks."""
    longest_due_us: Micros
    """For how long one of them has been due, at most; 0 where none is."""


def take_census(board: Iterable[LiveMachine], now: Micros) -> Census:
    """Count. Costs a look at each machine and at what is claimed on it, not at each execution that waits."""
    machines: Counter[Phase] = Counter()
    executions: Counter[ExecutionState] = Counter()
    oldest, terminals = now, 0
    for live in board:
        machines[live.machine.phase] += 1
        executions[ExecutionState.QUEUED] += len(live.queue)
        executions[ExecutionState.WAKE_IN_PROGRESS] += len(live.waking)
        executions.update(execution.state for execution in live.claimed.values())
        terminals += sum(execution.on_tty for execution in live.claimed.values())
        oldest = min(oldest, *(execution.created_at for execution in _first(live)), now)
    return Census(machines, executions, now - oldest, terminals)


async def take_stored_census(store: Store, clock: Clock) -> StoredCensus:
    """Count. Costs the store a look at what is open. Raises StoreUnavailable."""
    now, steady = clock.now(), clock.steady()
    pending = await store.webhooks.pending()
    return StoredCensus(
        ssh_sessions=await store.ssh_sessions.open(now),
        previews=await store.previews.open(steady),
        deliveries=pending.deliveries,
        longest_due_us=0 if pending.due_at is None else max(0, max(now, steady) - pending.due_at),
    )


def _first(live: LiveMachine) -> Iterator[Execution]:
    """Yield those among which the oldest that waits is: queues are in order of creation."""
    for queue in (live.queue, live.waking):
        if queue:
            yield next(iter(queue.values()))
    for execution in live.claimed.values():
        if execution.started_at is None:
            yield execution
