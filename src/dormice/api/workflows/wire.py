"""Bodies of the workflow surface (contract `workflows-api`, sections 0 and 1). Unknown keys are ignored: SDKs send more than is read."""

from __future__ import annotations

from msgspec import UNSET, Raw, Struct, UnsetType, field

from dormice.api.machines.orders import CreateExecutionRequest
from dormice.domain import documents
from dormice.domain.moments import rfc3339
from dormice.domain.run import Run, Step
from dormice.store.workflows import RunInput, RunResult


def time(moment: int | None) -> str | None:
    """A moment, if there is one."""
    return None if moment is None else rfc3339(moment)


class ExecutionRecord(Struct, kw_only=True):
    """A run as clients see it: all 24 keys are always there."""

    id: str
    workflow_id: str
    status: str
    payload: Raw
    result: Raw
    error: str | None
    created_at: str
    started_at: str | None
    completed_at: str | None
    deployment_id: str | None
    assigned_to_worker: str | None
    parent_execution_id: str | None
    root_execution_id: str | None
    retry_count: int
    step_key: str | None
    queue_name: str | None
    concurrency_key: str | None
    batch_id: str | None
    session_id: str | None
    user_id: str | None
    output_schema_name: str | None
    cancelled_at: str | None
    cancelled_by: str | None
    run_timeout_seconds: int | None


def execution(run: Run, given: RunInput, came: RunResult) -> ExecutionRecord:
    """Return a run as clients see it."""
    return ExecutionRecord(
        id=run.id,
        workflow_id=run.workflow_id,
        status=run.state.value,
        payload=Raw(given.payload),
        result=documents.raw(came.result),
        error=run.error,
        created_at=rfc3339(run.created_at),
        started_at=time(run.started_at),
        completed_at=time(run.completed_at),
        deployment_id=run.deployment_id,
        assigned_to_worker=run.worker_id,
        parent_execution_id=run.parent_id,
        root_execution_id=run.root_id,
        retry_count=run.retry_count,
        step_key=run.step_key,
        queue_name=run.queue_name,
        concurrency_key=run.concurrency_key,
        batch_id=run.batch_id,
        session_id=run.session_id,
        user_id=run.user_id,
        output_schema_name=came.output_schema_name,
        cancelled_at=time(run.cancelled_at),
        cancelled_by=run.cancelled_by and run.cancelled_by.value,
        run_timeout_seconds=run.run_timeout_seconds,
    )


class RunRequest(Struct, kw_only=True):
    """A run to be made."""

    payload: Raw
    deployment_id: str | None = None
    parent_execution_id: str | None = None
    root_execution_id: str | None = None
    step_key: str | None = None
    queue_name: str | None = None
    concurrency_key: str | None = None
    queue_concurrency_limit: int | None = None
    wait_for_subworkflow: bool | None = None
    session_id: str | None = None
    user_id: str | None = None
    otel_traceparent: str | None = None
    initial_state: Raw = field(default_factory=documents.nothing)
    run_timeout_seconds: int | None = None
    channel_context: Raw = field(default_factory=documents.nothing)
    priority: int = 0


class Submitted(Struct, kw_only=True):
    """A run that was made."""

    execution_id: str
    created_at: str
    execution: ExecutionRecord | UnsetType = UNSET
    """The run as it is when the answer comes, where `wait_ms` was given."""


class BatchEntry(Struct, kw_only=True):
    """One run of a batch."""

    workflow_id: str
    payload: Raw
    queue_name: str | None = None
    concurrency_key: str | None = None
    queue_concurrency_limit: int | None = None
    initial_state: Raw = field(default_factory=documents.nothing)
    run_timeout_seconds: int | None = None
    priority: int = 0


class BatchRequest(Struct, kw_only=True):
    """Runs to be made together."""

    workflows: list[BatchEntry]
    deployment_id: str | None = None
    step_key: str | None = None
    parent_execution_id: str | None = None
    root_execution_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    wait_for_subworkflow: bool | None = None
    otel_traceparent: str | None = None
    channel_context: Raw = field(default_factory=documents.nothing)


class BatchSubmitted(Struct, kw_only=True):
    """The runs of a batch, in the order in which they were asked for."""

    executions: list[Submitted]


class CancelRecord(Struct, kw_only=True):
    """A run whose end was asked for."""

    execution_id: str
    status: str
    cancelled_at: str | None


class CompleteRequest(Struct, kw_only=True):
    """What a run came to."""

    result: Raw
    worker_id: str
    output_schema_name: str | None = None
    final_state: Raw = field(default_factory=documents.nothing)


class FailRequest(Struct, kw_only=True):
    """Why an attempt failed."""

    error: str
    worker_id: str
    stack: str | None = None
    retryable: bool = True
    final_state: Raw = field(default_factory=documents.nothing)


class WorkerReference(Struct, kw_only=True):
    """Who writes."""

    worker_id: str


class StepRequest(Struct, kw_only=True):
    """A step that has been run."""

    step_key: str
    outputs: Raw = field(default_factory=documents.nothing)
    error: Raw = field(default_factory=documents.nothing)
    success: bool | None = None
    source_execution_id: str | None = None
    output_schema_name: str | None = None


class StepRecord(Struct, kw_only=True):
    """A step."""

    step_key: str
    outputs: Raw
    error: Raw
    success: bool
    source_execution_id: str | None
    output_schema_name: str | None
    completed_at: str | None


def step(found: Step) -> StepRecord:
    """Return a step as workers see it."""
    return StepRecord(
        step_key=found.step_key,
        outputs=Raw(found.outputs),
        error=documents.raw(found.error),
        success=found.success,
        source_execution_id=found.source_run_id,
        output_schema_name=found.output_schema_name,
        completed_at=time(found.completed_at),
    )


class StepList(Struct, kw_only=True):
    """The steps of a run, by key."""

    steps: list[StepRecord]


class WaitRequest(Struct, kw_only=True):
    """What a run waits for."""

    step_key: str
    wait_type: str
    wait_until: str | None = None
    wait_topic: str | None = None
    expires_at: str | None = None


class Waiting(Struct, kw_only=True):
    """A run that waits."""

    execution_id: str


class SpanRequest(Struct, kw_only=True):
    """The trace span of an attempt that has let go."""

    otel_span_id: str | None = None


class RegisterRequest(Struct, kw_only=True):
    """A worker that comes."""

    project_id: str
    deployment_id: str | None = None
    mode: str | None = None
    push_endpoint_url: str | None = None
    max_concurrent_executions: int | None = None
    capabilities: Raw = field(default_factory=documents.nothing)


class Registered(Struct, kw_only=True):
    """A worker's id."""

    worker_id: str


class DeploymentRequest(Struct, kw_only=True):
    """A deployment that comes."""

    deployment_id: str


class DefinitionRequest(Struct, kw_only=True):
    """A workflow, agent or tool of a deployment."""

    workflow_id: str
    workflow_type: str
    trigger_on_event: bool | None = None
    scheduled: bool | None = None
    input_schema: Raw = field(default_factory=documents.nothing)
    output_schema: Raw = field(default_factory=documents.nothing)
    retry_policy: Raw = field(default_factory=documents.nothing)


def offered(definition: Struct) -> dict[str, Raw]:
    """Return what is said of a workflow, agent or tool in documents, without those that are absent or null."""
    fields = ((name, getattr(definition, name)) for name in ("input_schema", "output_schema", "retry_policy"))
    return {name: document for name, document in fields if documents.json(document) is not None}


class QueueEntry(Struct, kw_only=True):
    """A queue and its limit."""

    name: str
    concurrency_limit: int | None = None


class QueuesRequest(Struct, kw_only=True):
    """The queues of a deployment."""

    deployment_id: str
    queues: list[QueueEntry]


class Heartbeat(Struct, kw_only=True):
    """Whether a worker has to register again."""

    re_register: bool


class WorkersStatus(Struct, kw_only=True):
    """Whether there are workers of a deployment."""

    online_count: int
    has_workers: bool


class ActiveWorkers(Struct, kw_only=True):
    """The workers that are given runs."""

    worker_ids: list[str]


class PublishEvent(Struct, kw_only=True):
    """An event to be published."""

    data: Raw
    event_type: str | None = None
    execution_id: str | None = None
    attempt_number: int | None = None


class PublishRequest(Struct, kw_only=True):
    """Events to be published, in their order."""

    topic: str
    events: list[PublishEvent]
    durable: bool = False
    execution_id: str | None = None
    root_execution_id: str | None = None


class Published(Struct, kw_only=True):
    """The sequences of the events."""

    sequence_ids: list[int]
    created_at: str


class EventRecord(Struct, kw_only=True):
    """An event."""

    id: str
    sequence_id: int
    topic: str
    event_type: str | None
    data: Raw
    created_at: str


class EventList(Struct, kw_only=True):
    """A page of events."""

    events: list[EventRecord]
    next_sequence_id: int | None
    has_more: bool


class CommandRequest(Struct, kw_only=True):
    """A command on a machine, as a step of a run."""

    step_key: str
    machine_id: str
    execution: CreateExecutionRequest
    """What POST /v1/machines/{machine_id}/executions takes."""
    worker_id: str
    """The worker that has the run."""
    fence: int | None = None
    """Of the claim by which it has it, if it knows it."""
