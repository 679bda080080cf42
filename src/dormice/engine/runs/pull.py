"""Workers that fetch their work: they connect, are sent runs, and report.

What such a worker writes carries the fence of its claim. It lets go of what it has by itself once it has had no answer for
`pull_lost_ms`, and only after that are its runs given to others, so no run is executed under two fences at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from dormice.domain.run import NULL, Json, Run, RunState, Step
from dormice.engine.clock import Clock
from dormice.engine.runs.board import LiveWorker, RunBoard
from dormice.engine.runs.channel import WorkChannel
from dormice.engine.runs.dispatcher import RunDispatcher
from dormice.engine.runs.orders import WorkerOrder
from dormice.engine.runs.registry import Registry
from dormice.engine.runs.workers import Workers
from dormice.store.projects import Definition, Project
from dormice.store.workflows import RunInput, RunStore


class Offering(Struct, frozen=True, kw_only=True):
    """A workflow that a worker runs."""

    workflow_id: str
    spec: Json
    queue_name: str | None = None
    concurrency_limit: int | None = None
    scheduled: bool = False
    trigger_on_event: bool = False


class ConnectOrder(Struct, frozen=True, kw_only=True):
    """A worker that comes, or comes again."""

    deployment_id: str
    max_concurrent: int
    worker_id: str | None = None
    """As it was known before."""
    offers: Sequence[Offering] = ()


class Presence(StrEnum):
    """What a worker says of itself."""

    WORKING = "working"
    DRAINING = "draining"  # it wants no more runs
    LEAVING = "leaving"  # it has none, and will not be heard of again


class Pull:
    """Connections of workers. Raises NotFound, Invalid, StoreUnavailable."""

    def __init__(
        self,
        *,
        store: RunStore,
        board: RunBoard,
        registry: Registry,
        workers: Workers,
        dispatcher: RunDispatcher,
        clock: Clock,
        lost_ms: int,
    ) -> None:
        self._store = store
        self._board = board
        self._registry = registry
        self._workers = workers
        self._dispatcher = dispatcher
        self._clock = clock
        self.lost_ms = lost_ms
        """How long a worker may be silent before its runs are given to others."""

    async def connect(self, project: Project, order: ConnectOrder) -> LiveWorker:
        """Return the worker that comes again, or record a new one and what it offers."""
        live = None if order.worker_id is None else self._workers.find(project, order.worker_id)
        if live is not None and live.worker.mode == "pull" and live.worker.deployment_id == order.deployment_id:
            self._workers.heard_of(live)
            return live
        for offer in order.offers:
            await self._registry.check(project.id, offer.spec)
        await self._registry.deploy(project, order.deployment_id)
        await asyncio.gather(*(self._define(project, order.deployment_id, offer) for offer in order.offers))
        await self._registry.set_queues(project, order.deployment_id, list(_limits(order.offers).items()))
        worker = await self._workers.register(
            project,
            WorkerOrder(
                deployment_id=order.deployment_id,
                mode="pull",
                url=None,
                max_concurrent=order.max_concurrent,
                capabilities=NULL,
            ),
        )
        return self._board.workers[worker.id]

    async def _define(self, project: Project, deployment_id: str, offer: Offering) -> None:
        await self._registry.define(
            Definition(
                project_id=project.id,
                deployment_id=deployment_id,
                kind="workflow",
                id=offer.workflow_id,
                scheduled=offer.scheduled,
                trigger_on_event=offer.trigger_on_event,
                spec=offer.spec,
                created_at=0,
                updated_at=0,
            ),
            checked=True,
        )

    def attach(self, live: LiveWorker, holding: Mapping[str, int]) -> tuple[WorkChannel, Mapping[str, int]]:
        """Begin to send a worker what it is to know. `holding`: the runs that it has, with their fences.

        Returns those that are its; it has to let go of all others. What is its and it does not have is sent again.
        """
        if live.channel is not None:
            live.channel.close()
        channel = live.channel = WorkChannel()
        live.online = live.worker.id in self._board.workers
        if not live.online:
            channel.close()
        self._workers.heard_of(live)
        own = [run for run in map(self._board.runs.get, live.held) if run is not None and self._has(live, run)]
        for run in own:
            if holding.get(run.id) != run.fence or run.state is RunState.PENDING_CANCEL:
                channel.send(run)
        self._dispatcher.look(live)
        return channel, {run.id: run.fence for run in own if holding.get(run.id) == run.fence}

    def detach(self, live: LiveWorker, channel: WorkChannel) -> None:
        """Its connection has ended; it may come again until it is lost."""
        if live.channel is channel:
            live.channel = None

    async def assignment(self, run: Run) -> tuple[RunInput, Sequence[Step]] | None:
        """Return all that a worker needs to run a run; None when it is not to run it any more."""
        current = self._board.runs.get(run.id)
        if current is None or current.fence != run.fence or current.state is not RunState.RUNNING:
            return None
        return await self._store.input(run), await self._store.steps(run)

    def _has(self, live: LiveWorker, run: Run) -> bool:
        return run.worker_id == live.worker.id and run.state in (RunState.RUNNING, RunState.PENDING_CANCEL)


def _limits(offers: Sequence[Offering]) -> Mapping[str, int | None]:
    """Return the limits of queues. Of several for one queue the least counts, as with the foreign SDK."""
    limits: dict[str, int | None] = {}
    for offer in offers:
        name, limit = offer.queue_name or offer.workflow_id, offer.concurrency_limit
        known = limits.setdefault(name, limit)
        if known is None or (limit is not None and limit < known):
            limits[name] = limit
    return limits
