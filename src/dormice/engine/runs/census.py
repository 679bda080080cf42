"""How many runs, waits and workers there are at this moment, counted in memory as they changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dormice.domain.execution import Micros
from dormice.domain.run import RunState, WaitKind
from dormice.engine.runs.board import LiveWorker, RunBoard
from dormice.engine.runs.dispatcher import MOST_FAILURES
from dormice.engine.runs.ledger import Ledger


class WorkerState(StrEnum):
    """Whether a worker is given runs."""

    ONLINE = "online"
    FULL = "full"  # it has as many as it takes
    OFFLINE = "offline"  # it leaves, has not said yet that it is there, is not reached, or was not heard of


@dataclass(frozen=True, slots=True)
class RunCensus:
    """The runs that have not ended, and the workers that are not forgotten."""

    states: Mapping[RunState, int]
    ready: int
    """Runs that could run and that no worker has taken."""
    longest_ready_us: Micros
    """How long one of them has been ready, at most; 0 without one."""
    waits: Mapping[WaitKind, int]
    workers: Mapping[WorkerState, int]


def take_run_census(board: RunBoard, ledger: Ledger) -> RunCensus:
    """Count. Costs a look at each worker, and none at any run."""
    workers = Counter(_state(worker) for worker in board.workers.values())
    return RunCensus(board.states, ledger.ready, ledger.longest_ready, board.waits.kinds, workers)


def _state(live: LiveWorker) -> WorkerState:
    unreached = live.failures >= MOST_FAILURES or (live.worker.mode == "pull" and live.channel is None)
    if unreached or not live.online:
        return WorkerState.OFFLINE
    return WorkerState.ONLINE if live.free > 0 else WorkerState.FULL
