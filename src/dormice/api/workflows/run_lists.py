"""Routes that list runs, and what belongs to one: children, steps, and why it is queued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.operation import Operation, Parameter
from dormice.api.http.pagination import list_cursor
from dormice.api.http.replies import json_reply, list_reply
from dormice.api.services import WorkflowServices
from dormice.api.workflows import parameters, wire
from dormice.api.workflows.door import Door, bad
from dormice.domain import documents
from dormice.domain.limits import Limits
from dormice.domain.moments import rfc3339
from dormice.domain.run import Run, RunState
from dormice.engine.orders import Caller
from dormice.engine.runs.checks import uuid_of
from dormice.engine.runs.registry import KINDS
from dormice.store.lists import RunDocuments, RunFilter
from dormice.store.projects import Project
from dormice.store.workflows import Command

_PAGE = 50
_STATES = {state.value: state for state in RunState}


class ExecutionSummary(Struct, kw_only=True):
    """A run without its documents: `GET /api/v1/executions/{execution_id}` has them."""

    id: str
    workflow_id: str
    status: str
    error: str | None
    created_at: str
    started_at: str | None
    completed_at: str | None
    deployment_id: str
    assigned_to_worker: str | None
    parent_execution_id: str | None
    root_execution_id: str | None
    retry_count: int
    step_key: str | None
    queue_name: str
    concurrency_key: str | None
    priority: int
    batch_id: str | None
    session_id: str | None
    user_id: str | None
    cancelled_at: str | None
    cancelled_by: str | None
    run_timeout_seconds: int | None


class ExecutionPage(Struct, kw_only=True):
    """Runs, the newest first. A page may be short, or empty, and still have a next one: so much is looked at for one page and no more."""

    executions: list[ExecutionSummary]
    next_cursor: str | None


class CommandRecord(Struct, kw_only=True):
    """A command on a machine that is a step of a run: an execution of the machine surface."""

    step_key: str
    execution_id: str
    machine_id: str
    status: str
    created_at: str
    completed_at: str | None


class ChildrenPage(ExecutionPage, kw_only=True):
    """The runs that a run has asked for, the newest first, and with the first page its commands."""

    commands: list[CommandRecord]


class QueueRecord(Struct, kw_only=True):
    """What a run waits for before a worker gets it, or which worker has it."""

    execution_id: str
    status: str
    reason: Annotated[
        str | None,
        Meta(
            description="`not_before`, `queue_limit`, `no_worker`, `workers_busy`, or `next`: nothing stands in its way. Null when it is not queued."
        ),
    ]
    queue_name: str
    concurrency_key: str | None
    position: int | None
    running: int | None
    concurrency_limit: int | None
    workers: int | None
    free_slots: int | None
    ready_at: str | None
    worker_id: Annotated[str | None, Meta(description="The worker that has it.")]
    worker_heard_at: Annotated[
        str | None, Meta(description="When that worker was last heard of; null of one that is not known any more.")
    ]


class RunRecord(Struct, kw_only=True):
    """A run with its documents, where they are short."""

    id: str
    execution_id: str
    root_execution_id: str | None
    workflow_id: str
    session_id: str | None
    created_at: str
    status: str
    completed_at: str | None
    payload: Raw
    result: Raw
    error: str | None
    documents_omitted: Annotated[
        bool, Meta(description="Whether payload or result is null here because it is too long to be listed.")
    ]


class RunListRoutes:
    """Handlers over lists of runs."""

    def __init__(self, services: WorkflowServices, limits: Limits, door: Door) -> None:
        self._lists = services.lists
        self._runs = services.runs
        self._limits = limits
        self._door = door

    async def page(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/executions."""
        which = RunFilter(
            states=_states(call),
            workflow_ids=None if (named := parameters.text(call, "workflow_id")) is None else frozenset({named}),
            queue_name=parameters.text(call, "queue"),
            session_id=parameters.text(call, "session_id"),
            user_id=parameters.text(call, "user_id"),
            batch_id=_uuid(call, "batch_id"),
            parent_id=_uuid(call, "parent"),
            roots=call.boolean("roots"),
            since=parameters.moment(call, "since"),
            until=parameters.moment(call, "until"),
        )
        return await self._page(call, project, which)

    async def children(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/executions/{execution_id}/children."""
        run = await self._runs.find(project, call.path["execution_id"])
        page = await self._found(call, project, RunFilter(parent_id=run.id))
        commands = [] if list_cursor(call) is not None else [_command(one) for one in await self._runs.commands(run)]
        return json_reply(ChildrenPage(executions=page.executions, next_cursor=page.next_cursor, commands=commands))

    async def _page(self, call: Call, project: Project, which: RunFilter) -> ASGIApp:
        return json_reply(await self._found(call, project, which))

    async def _found(self, call: Call, project: Project, which: RunFilter) -> ExecutionPage:
        limit = parameters.entries(call, _PAGE)
        found = await self._lists.page(project, which, before=list_cursor(call), limit=limit)
        cursor = None if found.before is None else f"b{found.before}"
        return ExecutionPage(executions=[summary(run) for run in found.runs], next_cursor=cursor)

    async def steps(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/executions/{execution_id}/steps."""
        found = await self._runs.steps(await self._runs.find(project, call.path["execution_id"]))
        found.sort(key=lambda one: one.completed_at)
        return json_reply(wire.StepList(steps=[wire.step(one) for one in found]))

    async def queue(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/executions/{execution_id}/queue."""
        run = await self._runs.find(project, call.path["execution_id"])
        why = self._lists.why_queued(project, run)
        record = QueueRecord(
            execution_id=run.id,
            status=run.state.value,
            reason=why.reason,
            queue_name=run.queue_name,
            concurrency_key=run.concurrency_key,
            position=why.position,
            running=why.taken,
            concurrency_limit=why.limit,
            workers=why.workers,
            free_slots=why.free_slots,
            ready_at=wire.time(why.ready_at),
            worker_id=why.worker_id,
            worker_heard_at=wire.time(why.heard_at),
        )
        return json_reply(record)

    async def runs(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/workflows/runs."""
        kind = parameters.text(call, "workflow_type") or "workflow"
        if kind not in KINDS:
            raise bad(f"workflow_type must be one of {', '.join(KINDS)}", "query.workflow_type")
        which = self._lists.of_kind(project, kind)
        if (named := parameters.text(call, "workflow_id")) is not None:
            known = which.workflow_ids
            which = RunFilter(
                workflow_ids=frozenset({named}) if known is None else known & {named},
                other_workflows=which.other_workflows,
            )
        which = msgspec.structs.replace(
            which,
            states=_states(call),
            since=parameters.moment(call, "start_time"),
            until=parameters.moment(call, "end_time"),
        )
        limit = parameters.page_size(call, _PAGE)
        found = await self._lists.counted(project, which, offset=parameters.offset(call), limit=limit)
        documents = await self._lists.documents(found)
        return list_reply([_record(run, given) for run, given in zip(found, documents, strict=True)])

    def operations(self) -> Sequence[Operation]:
        """Return the routes."""
        route = self._door.route
        one = "/api/v1/executions/{execution_id}"
        words = {"type": "string"}
        states = Parameter("status", "query", words, f"One or more of {', '.join(_STATES)}, with commas between.")
        return [
            route(
                "runs",
                "listRuns",
                "GET",
                "/api/v1/executions",
                "List runs",
                self.page,
                ExecutionPage,
                parameters=[
                    states,
                    Parameter("workflow_id", "query", words, "Those of this workflow."),
                    Parameter("queue", "query", words, "Those of this queue."),
                    Parameter("session_id", "query", words, "Those of this session."),
                    Parameter("user_id", "query", words, "Those of this user."),
                    Parameter("batch_id", "query", words, "Those of this batch."),
                    Parameter("parent", "query", words, "Those that this run has asked for."),
                    Parameter("roots", "query", {"type": "boolean"}, "Those that no run has asked for."),
                    Parameter("since", "query", words, "Made at this moment or later."),
                    Parameter("until", "query", words, "Made before this moment."),
                    parameters.ENTRIES,
                    parameters.CURSOR,
                ],
                exact=True,
            ),
            route(
                "runs",
                "listChildren",
                "GET",
                f"{one}/children",
                "List the runs that a run has asked for",
                self.children,
                ChildrenPage,
                parameters=[parameters.ENTRIES, parameters.CURSOR],
                exact=True,
            ),
            route(
                "runs",
                "listRunSteps",
                "GET",
                f"{one}/steps",
                "Read what a run has done, in the order in which it was done",
                self.steps,
                wire.StepList,
                exact=True,
            ),
            route(
                "runs",
                "getQueuePosition",
                "GET",
                f"{one}/queue",
                "See why a run is queued",
                self.queue,
                QueueRecord,
                exact=True,
            ),
            route(
                "runs",
                "listWorkflowRuns",
                "GET",
                "/api/v1/workflows/runs",
                "List runs of workflows, agents or tools with their payloads and results",
                self.runs,
                RunRecord,
                parameters=[
                    states,
                    Parameter("workflow_type", "query", {"type": "string", "enum": list(KINDS)}, "Of this kind."),
                    Parameter("workflow_id", "query", words, "Those of this workflow."),
                    parameters.START,
                    parameters.END,
                    parameters.LIMIT,
                    parameters.OFFSET,
                ],
                many=True,
            ),
        ]


def summary(run: Run) -> ExecutionSummary:
    """Return a run as lists have it."""
    return ExecutionSummary(
        id=run.id,
        workflow_id=run.workflow_id,
        status=run.state.value,
        error=run.error,
        created_at=rfc3339(run.created_at),
        started_at=wire.time(run.started_at),
        completed_at=wire.time(run.completed_at),
        deployment_id=run.deployment_id,
        assigned_to_worker=run.worker_id,
        parent_execution_id=run.parent_id,
        root_execution_id=run.root_id,
        retry_count=run.retry_count,
        step_key=run.step_key,
        queue_name=run.queue_name,
        concurrency_key=run.concurrency_key,
        priority=run.priority,
        batch_id=run.batch_id,
        session_id=run.session_id,
        user_id=run.user_id,
        cancelled_at=wire.time(run.cancelled_at),
        cancelled_by=run.cancelled_by and run.cancelled_by.value,
        run_timeout_seconds=run.run_timeout_seconds,
    )


def _record(run: Run, given: RunDocuments) -> RunRecord:
    return RunRecord(
        id=run.id,
        execution_id=run.id,
        root_execution_id=run.root_id,
        workflow_id=run.workflow_id,
        session_id=run.session_id,
        created_at=rfc3339(run.created_at),
        status=run.state.value,
        completed_at=wire.time(run.completed_at),
        payload=documents.raw(given.payload),
        result=documents.raw(given.result),
        error=run.error,
        documents_omitted=given.omitted,
    )


def _states(call: Call) -> frozenset[RunState] | None:
    given = parameters.text(call, "status")
    if given is None:
        return None
    words = [word.strip() for word in given.split(",")]
    if any(word not in _STATES for word in words):
        raise bad(f"status must be one or more of {', '.join(_STATES)}, with commas between", "query.status")
    return frozenset(_STATES[word] for word in words)


def _uuid(call: Call, name: str) -> str | None:
    given = parameters.text(call, name)
    return None if given is None else uuid_of(given, f"query.{name}")


def _command(command: Command) -> CommandRecord:
    execution = command.execution
    return CommandRecord(
        step_key=command.step_key,
        execution_id=execution.id,
        machine_id=execution.machine_id,
        status=execution.state.value,
        created_at=rfc3339(execution.created_at),
        completed_at=wire.time(execution.completed_at),
    )
