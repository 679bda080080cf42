"""What the engine remembers of runs that have not ended, of queues and of workers: a copy of the store, rebuilt from it at every start.

All limits are kept here: a run takes a place of its queue and a slot of its worker before its claim is written, and gives both back
when the store says that no worker has it any more. Nothing else decides, so no limit is ever exceeded.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from dormice.domain.execution import Micros
from dormice.domain.run import HELD, Run, RunState
from dormice.engine.ended import Ended
from dormice.engine.runs.open_waits import OpenWaits
from dormice.store.projects import Queue, Worker

Place = tuple[str, str]
"""A deployment of a project."""
Entry = tuple[int, int, str, int]
"""Of a run that waits for a worker: priority (negated), number, id, revision."""


class Channel(Protocol):
    """The connection of a worker that fetches its work."""

    def send(self, run: Run) -> None:
        """Have the worker told of a run that is its, or that has to end."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


@dataclass(eq=False, slots=True)
class LiveWorker:
    """A worker that may come back at any time until it is forgotten."""

    worker: Worker
    heard_at: Micros
    online: bool = False
    failures: int = 0
    """Pushes in a row that failed; those that were under way together count once."""
    held: set[str] = field(default_factory=set)
    """Runs that it has, those included whose claim is being written."""
    rests_until: Micros = 0
    """It said that it is full."""
    channel: Channel | None = None
    pushed_at: Micros = 0

    @property
    def place(self) -> Place:
        """Whose runs it takes."""
        return self.worker.project_id, self.worker.deployment_id

    @property
    def free(self) -> int:
        """Slots that are free."""
        return self.worker.max_concurrent - len(self.held)


@dataclass(eq=False, slots=True)
class Lane:
    """The runs of one queue that have one concurrency key, which have a limit together."""

    queue: tuple[str, str, str]
    key: str | None
    ready: list[Entry] = field(default_factory=list)
    """A heap."""
    taken: set[str] = field(default_factory=set)
    offered: Entry | None = None
    """The one of its offers that counts."""


class RunBoard:
    """Every run that has not ended, by id; every queue; every worker."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.states: Counter[RunState] = Counter()
        """How many runs that have not ended are in which state."""
        self.waits = OpenWaits()
        self._ended = Ended()
        self.workers: dict[str, LiveWorker] = {}
        self.limits: dict[tuple[str, str, str], int | None] = {}
        """By project, deployment and name of the queue."""
        self._lanes: dict[tuple[tuple[str, str, str], str | None], Lane] = {}
        self._offers: dict[Place, list[tuple[Entry, int, Lane]]] = {}
        """Heaps of lanes by their first runs. An offer that does not count any more is dropped when it is met."""
        self._offered = 0
        self.offered: set[tuple[str, int]] = set()
        """Runs (and their fences) whose push has not been answered: their worker may not have read it yet, and will."""
        self.dirty: dict[Place, None] = {}
        """Where something may be given to a worker now."""

    def set_limit(self, queue: Queue, *, new: bool = False) -> None:
        """Know a queue's limit; with `new`, only if the queue is not known."""
        name = (queue.project_id, queue.deployment_id, queue.name)
        if not (new and name in self.limits):
            self.limits[name] = queue.concurrency_limit
            for lane in list(self._lanes.values()):
                if lane.queue == name:
                    self._offer(lane)

    def place(self, run: Run) -> bool:
        """Take a run as the store has it now; return False if something newer is known already."""
        before = self.runs.get(run.id)
        if run.id in self._ended or (before is not None and before.revision >= run.revision):
            return False
        self._count(run, before)
        lane = self._lane(run)
        self._give_back(run, before, lane)
        if run.terminal:
            self.runs.pop(run.id, None)
            self._ended.add(run.id)
        else:
            self.runs[run.id] = run
        self._clean(lane)
        if _takes_a_place(run):
            lane.taken.add(run.id)
            if run.worker_id in self.workers:
                self.workers[run.worker_id].held.add(run.id)
        elif not lane.taken and not lane.ready:
            self._lanes.pop((lane.queue, lane.key), None)
        return True

    def _count(self, run: Run, before: Run | None) -> None:
        if before is not None:
            self.states[before.state] -= 1
        if not run.terminal:
            self.states[run.state] += 1
        if run.state is not RunState.WAITING:
            self.waits.end(run.id)

    def queue(self, run: Run) -> None:
        """Let a queued run be given to a worker: its moment has come."""
        lane = self._lane(run)
        entry = (-run.priority, run.number, run.id, run.revision)
        heapq.heappush(lane.ready, entry)
        if lane.ready[0] == entry:
            self._offer(lane)

    def pick(self, worker: LiveWorker) -> Run | None:
        """Return the run that the worker gets next, its place and slot taken; None when there is none for it."""
        offers = self._offers.get(worker.place)
        while offers and worker.free > 0:
            entry, _, lane = heapq.heappop(offers)
            if lane.offered != entry:
                continue
            lane.offered = None
            self._clean(lane)
            if not lane.ready or not self._has_room(lane):
                continue  # it is offered again when there is a run, or room
            if lane.ready[0] != entry:
                self._offer(lane)
                continue
            run = self.runs[heapq.heappop(lane.ready)[2]]
            lane.taken.add(run.id)
            worker.held.add(run.id)
            self._offer(lane)
            return run
        return None

    def _offer(self, lane: Lane) -> None:
        """Let a lane's first run be picked, if it has one and has room."""
        if lane.ready and self._has_room(lane):
            where = lane.queue[:2]
            self.dirty[where] = None
            if lane.offered != lane.ready[0]:
                lane.offered = lane.ready[0]
                self._offered += 1
                heapq.heappush(self._offers.setdefault(where, []), (lane.offered, self._offered, lane))

    def put_back(self, run: Run, worker: LiveWorker) -> None:
        """Undo a pick whose claim was not written."""
        current = self.runs.get(run.id)
        if current is None or not _takes_a_place(current):
            lane = self._lane(run)
            lane.taken.discard(run.id)
            worker.held.discard(run.id)
            self.dirty[worker.place] = None
            self._offer(lane)
        if current is not None and current.state is RunState.QUEUED:
            self.queue(current)

    def position(self, run: Run) -> tuple[int, int, int | None]:
        """Return how many runs of its lane go before a queued run, how many workers have, and the lane's limit."""
        lane = self._lane(run)
        entry = (-run.priority, run.number)
        ahead = sum(1 for other in lane.ready if other[:2] < entry and self._is_current(other))
        return ahead, len(lane.taken), self.limits.get(lane.queue)

    def workers_of(self, where: Place) -> Iterator[LiveWorker]:
        """Yield the workers of a deployment."""
        return (worker for worker in self.workers.values() if worker.place == where)

    def _lane(self, run: Run) -> Lane:
        queue = (run.project_id, run.deployment_id, run.queue_name)
        found = self._lanes.get((queue, run.concurrency_key))
        if found is None:
            found = self._lanes[queue, run.concurrency_key] = Lane(queue, run.concurrency_key)
        return found

    def _give_back(self, run: Run, before: Run | None, lane: Lane) -> None:
        holder = before.worker_id if before is not None else None
        if not _takes_a_place(run):
            if run.id in lane.taken:
                lane.taken.discard(run.id)
                self.dirty[run.project_id, run.deployment_id] = None  # a worker has a free slot
                self._offer(lane)
        elif holder == run.worker_id:
            return
        for worker_id in {holder, run.worker_id}:
            if worker_id is not None and (worker := self.workers.get(worker_id)) is not None:
                worker.held.discard(run.id)

    def _clean(self, lane: Lane) -> None:
        while lane.ready and not self._is_current(lane.ready[0]):
            heapq.heappop(lane.ready)

    def _is_current(self, entry: tuple[int, int, str, int]) -> bool:
        run = self.runs.get(entry[2])
        return run is not None and run.revision == entry[3] and run.state is RunState.QUEUED

    def _has_room(self, lane: Lane) -> bool:
        limit = self.limits.get(lane.queue)
        return limit is None or len(lane.taken) < limit


def _takes_a_place(run: Run) -> bool:
    """Whether a worker has it, or has not yet said that it has ended."""
    return run.state in HELD or (run.state is RunState.PENDING_CANCEL and run.worker_id is not None)
