"""Routes by which workers come, say what they offer, and stay."""

from __future__ import annotations

import msgspec

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Operation
from dormice.api.http.replies import json_reply
from dormice.api.services import WorkflowServices
from dormice.api.workflows import wire
from dormice.api.workflows.door import Door, bad, empty
from dormice.domain import documents
from dormice.domain.limits import Limits
from dormice.domain.run import NULL
from dormice.engine.orders import Caller
from dormice.engine.runs.checks import check_positive
from dormice.engine.runs.orders import WorkerOrder
from dormice.engine.runs.registry import KINDS
from dormice.store.projects import Definition, Project

_REGISTER = BodyDecoder(wire.RegisterRequest)
_DEPLOYMENT = BodyDecoder(wire.DeploymentRequest)
_DEFINITION = BodyDecoder(wire.DefinitionRequest)
_QUEUES = BodyDecoder(wire.QueuesRequest)
_DEFAULT_CONCURRENT = 100


class WorkerRoutes:
    """Handlers over workers and what they offer."""

    def __init__(self, services: WorkflowServices, limits: Limits, door: Door) -> None:
        self._services = services
        self._limits = limits
        self._door = door

    async def register(self, call: Call, caller: Caller, _project: Project) -> ASGIApp:
        """POST /api/v1/workers/register. The project is in the body."""
        body = _REGISTER.decode(call.header("Content-Type"), await self._body(call))
        make = self._services.local is not None
        project = await self._services.registry.project(caller, body.project_id, make=make)
        if (body.mode or "push") != "push":
            raise bad("mode must be push; a worker that fetches its work uses /api/v1/workers/connect", "body.mode")
        if body.push_endpoint_url is None:
            raise bad("push_endpoint_url is required", "body.push_endpoint_url")
        self._services.check_push_url(body.push_endpoint_url)
        most = _DEFAULT_CONCURRENT if body.max_concurrent_executions is None else body.max_concurrent_executions
        check_positive(most, "body.max_concurrent_executions")
        order = WorkerOrder(
            deployment_id=body.deployment_id,
            mode="push",
            url=body.push_endpoint_url.rstrip("/"),
            max_concurrent=most,
            capabilities=documents.json(body.capabilities) or NULL,
        )
        return json_reply(wire.Registered(worker_id=(await self._services.workers.register(project, order)).id))

    async def deploy(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/workers/deployments."""
        body = _DEPLOYMENT.decode(call.header("Content-Type"), await self._body(call))
        await self._services.registry.deploy(project, body.deployment_id)
        return empty()

    async def define(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/workers/deployments/{deployment_id}/workflows."""
        body = _DEFINITION.decode(call.header("Content-Type"), await self._body(call))
        if body.workflow_type not in KINDS:
            raise bad(f"workflow_type must be one of {', '.join(KINDS)}", "body.workflow_type")
        deployment = self._services.registry.deployment(project, call.path["deployment_id"])
        await self._services.registry.define(
            Definition(
                project_id=project.id,
                deployment_id=deployment.id,
                kind=body.workflow_type,
                id=body.workflow_id,
                trigger_on_event=bool(body.trigger_on_event),
                scheduled=bool(body.scheduled),
                spec=msgspec.json.encode(wire.offered(body)),
                created_at=0,
                updated_at=0,
            )
        )
        return empty()

    async def queues(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/workers/queues."""
        body = _QUEUES.decode(call.header("Content-Type"), await self._body(call))
        for entry in body.queues:
            check_positive(entry.concurrency_limit, "body.queues.concurrency_limit")
        limits = [(entry.name, entry.concurrency_limit) for entry in body.queues]
        await self._services.registry.set_queues(project, body.deployment_id, limits)
        return empty()

    async def online(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/workers/{worker_id}/online."""
        self._services.workers.online(project, call.path["worker_id"])
        return empty()

    async def heartbeat(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/workers/{worker_id}/heartbeat."""
        known = self._services.workers.heartbeat(project, call.path["worker_id"])
        return json_reply(wire.Heartbeat(re_register=not known))

    async def status(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/workers/status."""
        online = len(self._services.workers.active(project, call.query.get("deployment_id")))
        return json_reply(wire.WorkersStatus(online_count=online, has_workers=online > 0))

    async def active(self, _call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/workers/active."""
        found = self._services.workers.active(project)
        return json_reply(wire.ActiveWorkers(worker_ids=[live.worker.id for live in found]))

    async def _body(self, call: Call) -> bytes:
        return await call.body(self._limits.workflow_body_bytes)

    def operations(self) -> list[Operation]:
        """Return the routes."""
        route = self._door.route
        return [
            route(
                "workers",
                "registerWorker",
                "POST",
                "/api/v1/workers/register",
                "Register a worker",
                self.register,
                wire.Registered,
                body=wire.RegisterRequest,
            ),
            route(
                "workers",
                "deploy",
                "POST",
                "/api/v1/workers/deployments",
                "Record a deployment",
                self.deploy,
                body=wire.DeploymentRequest,
            ),
            route(
                "workers",
                "defineWorkflow",
                "POST",
                "/api/v1/workers/deployments/{deployment_id}/workflows",
                "Record a workflow, agent or tool of a deployment",
                self.define,
                body=wire.DefinitionRequest,
            ),
            route(
                "workers",
                "setQueues",
                "POST",
                "/api/v1/workers/queues",
                "Set the limits of queues",
                self.queues,
                body=wire.QueuesRequest,
            ),
            route(
                "workers",
                "workerOnline",
                "POST",
                "/api/v1/workers/{worker_id}/online",
                "Let a worker be given runs",
                self.online,
            ),
            route(
                "workers",
                "workerHeartbeat",
                "POST",
                "/api/v1/workers/{worker_id}/heartbeat",
                "Say that a worker is there",
                self.heartbeat,
                wire.Heartbeat,
            ),
            route(
                "workers",
                "workersStatus",
                "GET",
                "/api/v1/workers/status",
                "See whether a deployment has workers",
                self.status,
                wire.WorkersStatus,
            ),
            route(
                "workers",
                "activeWorkers",
                "GET",
                "/api/v1/workers/active",
                "List the workers that are given runs",
                self.active,
                wire.ActiveWorkers,
            ),
        ]
