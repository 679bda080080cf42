"""Routes by which clients let runs go on: again from a step, or with an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Raw, Struct, field

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Operation
from dormice.api.http.replies import json_reply
from dormice.api.services import WorkflowServices
from dormice.api.workflows import wire
from dormice.api.workflows.door import Door
from dormice.api.workflows.run_lists import ExecutionSummary, summary
from dormice.domain import documents
from dormice.domain.limits import Limits
from dormice.domain.moments import rfc3339
from dormice.engine.orders import Caller
from dormice.engine.runs.checks import check_step_key
from dormice.engine.runs.reruns import RerunOrder
from dormice.store.projects import Project


class RerunRequest(Struct, kw_only=True):
    """How a run is to be run again."""

    from_step: Annotated[
        str | None,
        Meta(
            description="The first step to be done again: what was done before it is taken over. Null: all of it is done again."
        ),
    ] = None
    deployment_id: Annotated[str | None, Meta(description="Null: the same deployment.")] = None


class ResumeRequest(Struct, kw_only=True):
    """What a run is suspended for."""

    step_key: str
    data: Raw = field(default_factory=documents.nothing)


_RERUN = BodyDecoder(RerunRequest)
_RESUME = BodyDecoder(ResumeRequest)


class RerunRoutes:
    """Handlers over runs that are to go on."""

    def __init__(self, services: WorkflowServices, limits: Limits, door: Door) -> None:
        self._services = services
        self._limits = limits
        self._door = door

    async def rerun(self, call: Call, caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/executions/{execution_id}/rerun."""
        text = await call.body()
        body = _RERUN.decode(call.header("Content-Type"), text) if text else RerunRequest()
        order = RerunOrder(from_step=body.from_step, deployment_id=body.deployment_id)
        run = await self._services.reruns.rerun(
            caller, project, call.path["execution_id"], order, call.idempotency(body)
        )
        return json_reply(wire.Submitted(execution_id=run.id, created_at=rfc3339(run.created_at)))

    async def resume(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/executions/{execution_id}/resume."""
        body = _RESUME.decode(call.header("Content-Type"), await call.body(self._limits.workflow_body_bytes))
        check_step_key(body.step_key, self._limits)
        run = await self._services.runs.find(project, call.path["execution_id"])
        await self._services.approvals.resume(project, run, body.step_key, bytes(body.data))
        return json_reply(summary(await self._services.runs.find(project, run.id)))

    def operations(self) -> Sequence[Operation]:
        """Return the routes."""
        route = self._door.route
        return [
            route(
                "runs",
                "rerunRun",
                "POST",
                "/api/v1/executions/{execution_id}/rerun",
                "Run again what has run, from a step on",
                self.rerun,
                wire.Submitted,
                body=RerunRequest,
                description="Makes a new run without a parent; the earlier one stays as it is. Takes an Idempotency-Key.",
            ),
            route(
                "runs",
                "resumeRun",
                "POST",
                "/api/v1/executions/{execution_id}/resume",
                "Give a suspended run what it waits for",
                self.resume,
                ExecutionSummary,
                body=ResumeRequest,
                description="409 when it waits for no answer at that step: the first one counts.",
            ),
        ]
