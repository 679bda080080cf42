"""Runs that nobody submits: schedules and triggers make them."""

from __future__ import annotations

from collections.abc import Sequence

from dormice.domain.run import Json, Run
from dormice.engine.clock import Clock, new_id
from dormice.engine.runs.board import RunBoard
from dormice.engine.runs.ledger import Ledger
from dormice.engine.runs.offers import Offers
from dormice.engine.runs.registry import Registry
from dormice.store.projects import Queue
from dormice.store.workflows import NewRun


class AutomaticRuns:
    """Says what they are made of, and takes them into memory once they are committed."""

    def __init__(self, *, board: RunBoard, ledger: Ledger, registry: Registry, offers: Offers, clock: Clock) -> None:
        self._board = board
        self._ledger = ledger
        self._registry = registry
        self._offers = offers
        self._clock = clock

    async def new(
        self,
        project_id: str,
        workflow_id: str,
        deployment_id: str,
        payload: Json,
        *,
        queue_name: str,
        queue_limit: int | None = None,
        concurrency_key: str | None = None,
    ) -> NewRun:
        """Return a run to be made. Its queue is made with it, if it does not exist yet: no run is where nobody claims it.

        One whose payload does not fit the workflow's input_schema fails as it is made: there is nobody whom it could be refused to.
        """
        offer = self._registry.offer(project_id, deployment_id, workflow_id)
        return NewRun(
            id=new_id(self._clock),
            project_id=project_id,
            workflow_id=workflow_id,
            payload=payload,
            deployment_id=deployment_id,
            queue_name=queue_name,
            queue_limit=queue_limit,
            concurrency_key=concurrency_key,
            max_retries=offer.retry_policy.max_retries,
            run_timeout_seconds=offer.run_timeout_seconds,
            fault=await self.fault(project_id, workflow_id, deployment_id, payload),
            now=self._clock.now(),
        )

    async def fault(self, project_id: str, workflow_id: str, deployment_id: str, payload: Json) -> str | None:
        """Say why a payload does not fit the workflow's input_schema; None if it does."""
        offer = self._registry.offer(project_id, deployment_id, workflow_id)
        return await self._offers.fault_of_payload(self._registry.organization(project_id), offer, payload)

    def knows_queue(self, project_id: str, deployment_id: str, name: str) -> bool:
        """Whether a queue is there."""
        return (project_id, deployment_id, name) in self._board.limits

    def made(self, news: Sequence[NewRun], changed: Sequence[Run]) -> None:
        """Take committed runs, and the queues that came with them."""
        made = {run.id for run in changed}
        for new in news:
            if new.id in made:
                self.set_queue(new.queue, new=True)
        self._ledger.apply(changed)

    def set_queue(self, queue: Queue, *, new: bool = False) -> None:
        """Know a queue's limit; with `new`, only if the queue is not known."""
        self._board.set_limit(queue, new=new)
        if self._board.dirty:
            self._ledger.work.set()
