"""Routes that show who works and what waits: workers and queues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Raw, Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.operation import Operation
from dormice.api.http.replies import json_reply
from dormice.api.services import WorkflowServices
from dormice.api.workflows.door import Door
from dormice.domain.limits import Limits
from dormice.domain.moments import rfc3339
from dormice.engine.orders import Caller
from dormice.engine.runs.lists import QueueState, WorkerState
from dormice.store.projects import Project


class WorkerRecord(Struct, kw_only=True):
    """A worker."""

    id: str
    deployment_id: str
    mode: str
    push_endpoint_url: str | None
    status: Annotated[
        str,
        Meta(
            description="`online`: it is given runs. `offline`: it is not, because it was not heard of or has refused."
        ),
    ]
    current_executions: int
    max_concurrent_executions: int
    capabilities: Raw
    created_at: str
    last_heartbeat: str


class WorkerList(Struct, kw_only=True):
    """A project's workers, the latest first."""

    workers: list[WorkerRecord]


class QueueStateRecord(Struct, kw_only=True):
    """A queue, and how many of its runs have not ended. The limit is for each concurrency key."""

    name: str
    deployment_id: str
    concurrency_limit: int | None
    queued: int
    running: int
    waiting: int


class QueueList(Struct, kw_only=True):
    """A project's queues, by deployment and name."""

    queues: list[QueueStateRecord]


class WorkRoutes:
    """Handlers over workers and queues."""

    def __init__(self, services: WorkflowServices, _limits: Limits, door: Door) -> None:
        self._lists = services.lists
        self._door = door

    async def workers(self, _call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/workers."""
        return json_reply(WorkerList(workers=[_worker(one) for one in self._lists.workers(project)]))

    async def queues(self, _call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/queues."""
        return json_reply(QueueList(queues=[_queue(one) for one in self._lists.queues(project)]))

    def operations(self) -> Sequence[Operation]:
        """Return the routes."""
        route = self._door.route
        return [
            route("workers", "listWorkers", "GET", "/api/v1/workers", "List workers", self.workers, WorkerList),
            route("workers", "listQueues", "GET", "/api/v1/queues", "List queues", self.queues, QueueList),
        ]


def _worker(one: WorkerState) -> WorkerRecord:
    worker = one.live.worker
    return WorkerRecord(
        id=worker.id,
        deployment_id=worker.deployment_id,
        mode=worker.mode,
        push_endpoint_url=worker.url,
        status="online" if one.given_runs else "offline",
        current_executions=len(one.live.held),
        max_concurrent_executions=worker.max_concurrent,
        capabilities=Raw(worker.capabilities),
        created_at=rfc3339(worker.created_at),
        last_heartbeat=rfc3339(one.heard_at),
    )


def _queue(one: QueueState) -> QueueStateRecord:
    return QueueStateRecord(
        name=one.name,
        deployment_id=one.deployment_id,
        concurrency_limit=one.limit,
        queued=one.queued,
        running=one.running,
        waiting=one.waiting,
    )
