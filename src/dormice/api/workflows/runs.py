"""Routes of runs, for clients."""

from __future__ import annotations

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Operation
from dormice.api.http.replies import json_reply
from dormice.api.machines.parameters import idempotency_key, wait_ms
from dormice.api.services import WorkflowServices
from dormice.api.workflows import wire
from dormice.api.workflows.door import Door, bad
from dormice.domain import documents
from dormice.domain.errors import Conflict
from dormice.domain.ids import canonical_uuid
from dormice.domain.limits import Limits
from dormice.domain.moments import rfc3339
from dormice.domain.run import Run
from dormice.engine.orders import Caller
from dormice.engine.runs.checks import check_order, check_step_key
from dormice.engine.runs.orders import RunOrder, Submission
from dormice.store.projects import Project

_RUN = BodyDecoder(wire.RunRequest)
_BATCH = BodyDecoder(wire.BatchRequest)


class RunRoutes:
    """Handlers over the runs."""

    def __init__(self, services: WorkflowServices, limits: Limits, door: Door) -> None:
        self._services = services
        self._limits = limits
        self._door = door

    async def submit(self, call: Call, caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/workflows/{workflow_id}/run."""
        body = _RUN.decode(call.header("Content-Type"), await call.body(self._limits.workflow_body_bytes))
        submission = Submission(
            runs=[_order(call.path["workflow_id"], body)],
            deployment_id=body.deployment_id,
            parent_id=uuid_or_none(body.parent_execution_id),
            step_key=body.step_key,
            wait=bool(body.wait_for_subworkflow),
            session_id=body.session_id,
            user_id=body.user_id,
            channel_context=documents.json(body.channel_context),
            traceparent=body.otel_traceparent,
        )
        self._check(submission)
        patience = call.wait_ms()
        [run] = await self._services.runs.submit(caller, project, submission, call.idempotency(body))
        submitted = _submitted(run)
        if patience:
            submitted.execution = await self._record(await self._services.runs.ended(run, patience))
        return json_reply(submitted)

    async def submit_batch(self, call: Call, caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/workflows/batch_run."""
        body = _BATCH.decode(call.header("Content-Type"), await call.body(self._limits.workflow_body_bytes))
        if not 0 < len(body.workflows) <= self._limits.batch_runs:
            raise bad(f"workflows must have from 1 to {self._limits.batch_runs} entries (batch_runs)", "body.workflows")
        submission = Submission(
            runs=[_order(entry.workflow_id, entry) for entry in body.workflows],
            batch=True,
            deployment_id=body.deployment_id,
            parent_id=uuid_or_none(body.parent_execution_id),
            step_key=body.step_key,
            wait=bool(body.wait_for_subworkflow),
            session_id=body.session_id,
            user_id=body.user_id,
            channel_context=documents.json(body.channel_context),
            traceparent=body.otel_traceparent,
        )
        self._check(submission)
        runs = await self._services.runs.submit(caller, project, submission, call.idempotency(body))
        return json_reply(wire.BatchSubmitted(executions=[_submitted(run) for run in runs]))

    async def get(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/executions/{execution_id}."""
        run = await self._services.runs.get(project, call.path["execution_id"], wait_ms=call.wait_ms())
        return json_reply(await self._record(run))

    async def cancel(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/executions/{execution_id}/cancel."""
        try:
            run = await self._services.runs.cancel(project, call.path["execution_id"])
        except Conflict as error:
            raise bad(error.message, "path.execution_id") from None
        record = wire.CancelRecord(
            execution_id=run.id, status=run.state.value, cancelled_at=wire.time(run.cancelled_at)
        )
        return json_reply(record)

    async def _record(self, run: Run) -> wire.ExecutionRecord:
        return wire.execution(run, *await self._services.runs.record(run))

    def _check(self, submission: Submission) -> None:
        if submission.step_key is not None:
            check_step_key(submission.step_key, self._limits)
        for order in submission.runs:
            check_order(order)

    def operations(self) -> list[Operation]:
        """Return the routes."""
        route = self._door.route
        key = idempotency_key(self._limits, required=False, refusal="CONFLICT")
        wait = wait_ms(self._limits, "the run has ended")
        return [
            route(
                "runs",
                "runWorkflow",
                "POST",
                "/api/v1/workflows/{workflow_id}/run",
                "Run a workflow",
                self.submit,
                wire.Submitted,
                body=wire.RunRequest,
                description=(
                    "The workflow need not be registered: an unknown one fails at the worker. With `wait_ms` the answer has "
                    "the run's record, too, as `execution`."
                ),
                parameters=(key, wait),
            ),
            route(
                "runs",
                "runWorkflows",
                "POST",
                "/api/v1/workflows/batch_run",
                "Run several workflows, all or none",
                self.submit_batch,
                wire.BatchSubmitted,
                body=wire.BatchRequest,
                parameters=(key,),
            ),
            route(
                "runs",
                "getRun",
                "GET",
                "/api/v1/executions/{execution_id}",
                "Read a run",
                self.get,
                wire.ExecutionRecord,
                parameters=(wait,),
            ),
            route(
                "runs",
                "cancelRun",
                "POST",
                "/api/v1/executions/{execution_id}/cancel",
                "Cancel a run and all below it",
                self.cancel,
                wire.CancelRecord,
            ),
        ]


def uuid_or_none(text: str | None) -> str | None:
    """A run's id as it is stored; None when it is none: the contract takes what cannot be read for absent."""
    try:
        return None if text is None else canonical_uuid(text)
    except ValueError:
        return None


def _order(workflow_id: str, body: wire.RunRequest | wire.BatchEntry) -> RunOrder:
    return RunOrder(
        workflow_id=workflow_id,
        payload=bytes(body.payload),
        queue_name=body.queue_name,
        queue_limit=body.queue_concurrency_limit,
        concurrency_key=body.concurrency_key,
        priority=body.priority,
        initial_state=documents.json(body.initial_state),
        run_timeout_seconds=body.run_timeout_seconds,
    )


def _submitted(run: Run) -> wire.Submitted:
    return wire.Submitted(execution_id=run.id, created_at=rfc3339(run.created_at))
