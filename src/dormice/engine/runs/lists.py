"""Lists for people: runs, workers, queues; and why a run is still queued."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from dormice.domain.execution import Micros
from dormice.domain.run import HELD, Run, RunState
from dormice.engine.clock import Clock
from dormice.engine.runs.board import LiveWorker, RunBoard
from dormice.engine.runs.registry import KINDS, Registry
from dormice.engine.runs.workers import Workers
from dormice.store.lists import RunDocuments, RunFilter, RunListStore, RunPage
from dormice.store.projects import Project

DOCUMENT_BYTES = 64 * 1024
"""Longer payloads and results are not listed: a run's own record has them."""

_WITH_A_WORKER = HELD | {RunState.PENDING_CANCEL}


class WhyQueued(Struct, frozen=True, kw_only=True):
    """What a run waits for before a worker gets it; of one that a worker has, which one. All else is None."""

    reason: str | None = None
    """`not_before`, `queue_limit`, `no_worker`, `workers_busy`, or `next`: nothing stands in its way."""
    ready_at: Micros | None = None
    """The moment before which it is given to nobody: of its next attempt."""
    position: int | None = None
    """How many runs with its queue and concurrency key go before it."""
    taken: int | None = None
    """How many of them workers have."""
    limit: int | None = None
    """How many of them workers may have at once; None: any number."""
    workers: int | None = None
    """How many workers its deployment has that are given runs."""
    free_slots: int | None = None
    """How many runs more they take together."""
    worker_id: str | None = None
    """The worker that has it."""
    heard_at: Micros | None = None
    """When that was last heard of; None of one that is not known any more."""


class QueueState(Struct, kw_only=True):
    """A queue, and its runs that have not ended."""

    name: str
    deployment_id: str
    limit: int | None
    queued: int = 0
    running: int = 0
    waiting: int = 0


class WorkerState(Struct, frozen=True, kw_only=True):
    """A worker, and when it was last heard of."""

    live: LiveWorker
    heard_at: Micros
    given_runs: bool


class Lists:
    """Raises StoreUnavailable."""

    def __init__(
        self, *, store: RunListStore, board: RunBoard, registry: Registry, workers: Workers, clock: Clock
    ) -> None:
        self._store = store
        self._board = board
        self._registry = registry
        self._workers = workers
        self._clock = clock

    async def page(self, project: Project, which: RunFilter, *, before: int | None, limit: int) -> RunPage:
        """Return runs, the newest first, below the number `before`."""
        return await self._store.page(project.id, which, before=before, limit=limit)

    async def counted(self, project: Project, which: RunFilter, *, offset: int, limit: int) -> Sequence[Run]:
        """Return runs, the newest first, the first `offset` of them left out."""
        found: list[Run] = []
        before: int | None = None
        while True:
            page = await self._store.page(project.id, which, before=before, limit=offset + limit - len(found))
            found += page.runs
            before = page.before
            if before is None or len(found) == offset + limit:
                return found[offset:]

    async def documents(self, runs: Sequence[Run]) -> Sequence[RunDocuments]:
        """Return what runs were given and what came of them, as far as that is short."""
        return await self._store.documents(runs, most_bytes=DOCUMENT_BYTES)

    def of_kind(self, project: Project, kind: str) -> RunFilter:
        """Return the filter for the runs of workflows, agents or tools; what nobody has registered is a workflow."""
        of = {one: frozenset(known.id for known in self._registry.definitions(project, one)) for one in KINDS}
        if kind == "workflow":
            return RunFilter(other_workflows=(of["agent"] | of["tool"]) - of["workflow"])
        return RunFilter(workflow_ids=of[kind])

    def why_queued(self, project: Project, run: Run) -> WhyQueued:
        """Return what a run waits for before a worker gets it."""
        if run.state in _WITH_A_WORKER:
            live = self._board.workers.get(run.worker_id or "")
            heard_at = None if live is None else self._moment(live.heard_at)
            return WhyQueued(worker_id=run.worker_id, heard_at=heard_at)
        if run.state is not RunState.QUEUED:
            return WhyQueued()
        position, taken, limit = self._board.position(run)
        active = self._workers.active(project, run.deployment_id)
        free = sum(max(0, live.free) for live in active)
        left = run.not_before - self._clock.steady()
        if left > 0:
            reason = "not_before"
        elif limit is not None and taken >= limit:
            reason = "queue_limit"
        elif not active:
            reason = "no_worker"
        else:
            reason = "next" if free else "workers_busy"
        return WhyQueued(
            reason=reason,
            ready_at=self._clock.now() + left if left > 0 else None,
            position=position,
            taken=taken,
            limit=limit,
            workers=len(active),
            free_slots=free,
        )

    def workers(self, project: Project) -> Sequence[WorkerState]:
        """Return a project's workers, the latest first."""
        active = {live.worker.id for live in self._workers.active(project)}
        return [
            WorkerState(live=live, heard_at=self._moment(live.heard_at), given_runs=live.worker.id in active)
            for live in sorted(self._workers.all(project), key=lambda live: live.worker.created_at, reverse=True)
        ]

    def _moment(self, steady: Micros) -> Micros:
        return steady + self._clock.now() - self._clock.steady()

    def queues(self, project: Project) -> Sequence[QueueState]:
        """Return a project's queues, those without runs too, by name."""
        found = {
            (deployment_id, name): QueueState(name=name, deployment_id=deployment_id, limit=limit)
            for (project_id, deployment_id, name), limit in self._board.limits.items()
            if project_id == project.id
        }
        for run in self._board.runs.values():
            if run.project_id != project.id or (state := found.get((run.deployment_id, run.queue_name))) is None:
                continue
            state.queued += run.state is RunState.QUEUED
            state.waiting += run.state is RunState.WAITING
            state.running += run.state in HELD or run.state is RunState.PENDING_CANCEL
        return [found[key] for key in sorted(found)]
