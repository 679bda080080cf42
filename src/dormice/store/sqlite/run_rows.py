"""Rows of the workflow tables to domain objects: one function per kind of row."""

from __future__ import annotations

from typing import Any

from dormice.domain.run import CancelledBy, Event, Run, RunState, Step
from dormice.store.projects import Definition, Deployment, Project, Queue, Worker
from dormice.store.workflows import RunInput, RunResult

# Looking a word up is several times faster than calling its enum.
_STATES = {state.value: state for state in RunState}
_CANCELLED_BY = {word.value: word for word in CancelledBy}


def run(row: tuple[Any, ...]) -> Run:
    """A row of `runs`."""
    return Run(
        number=row[0],
        id=row[1],
        project_id=row[2],
        workflow_id=row[3],
        state=_STATES[row[4]],
        revision=row[5],
        created_at=row[6],
        deployment_id=row[7],
        queue_name=row[8],
        concurrency_key=row[9],
        priority=row[10],
        not_before=row[11],
        started_at=row[12],
        running_since=row[13],
        completed_at=row[14],
        worker_id=row[15],
        fence=row[16],
        parent_id=row[17],
        root_id=row[18],
        root_workflow_id=row[19],
        step_key=row[20],
        batch_id=row[21],
        session_id=row[22],
        user_id=row[23],
        retry_count=row[24],
        max_retries=row[25],
        crashes=row[26],
        error=row[27],
        cancelled_at=row[28],
        cancelled_by=row[29] and _CANCELLED_BY[row[29]],
        run_timeout_seconds=row[30],
    )


def run_input(row: tuple[Any, ...]) -> RunInput:
    """What a run was given: the first five columns."""
    return RunInput(payload=row[0], initial_state=row[1], channel_context=row[2], traceparent=row[3], span_id=row[4])


def run_result(row: tuple[Any, ...]) -> RunResult:
    """A row of `run_results`."""
    result, schema, final_state = row
    return RunResult(result=result, output_schema_name=schema, final_state=final_state)


def step(row: tuple[Any, ...]) -> Step:
    """A row of `steps`."""
    key, outputs, error, success, source_run_id, schema, completed_at = row
    return Step(
        step_key=key,
        outputs=outputs,
        error=error,
        success=bool(success),
        source_run_id=source_run_id,
        output_schema_name=schema,
        completed_at=completed_at,
    )


def event(row: tuple[Any, ...]) -> Event:
    """A row of `events`."""
    sequence, identity, topic, event_type, data, created_at, run_id, attempt = row
    return Event(
        sequence=sequence,
        id=identity,
        topic=topic,
        event_type=event_type,
        data=data,
        created_at=created_at,
        run_id=run_id,
        attempt_number=attempt,
    )


def project(row: tuple[Any, ...]) -> Project:
    """A row of `projects`."""
    identity, organization_id, name, description, is_default, created_at, updated_at = row
    return Project(
        id=identity,
        organization_id=organization_id,
        name=name,
        description=description,
        is_default=bool(is_default),
        created_at=created_at,
        updated_at=updated_at,
    )


def deployment(row: tuple[Any, ...]) -> Deployment:
    """A row of `deployments`."""
    project_id, identity, created_at, deployed_at = row
    return Deployment(project_id=project_id, id=identity, created_at=created_at, deployed_at=deployed_at)


def definition(row: tuple[Any, ...]) -> Definition:
    """A row of `definitions`."""
    project_id, deployment_id, kind, identity, trigger, scheduled, spec, created_at, updated_at = row
    return Definition(
        project_id=project_id,
        deployment_id=deployment_id,
        kind=kind,
        id=identity,
        trigger_on_event=bool(trigger),
        scheduled=bool(scheduled),
        spec=spec,
        created_at=created_at,
        updated_at=updated_at,
    )


def queue(row: tuple[Any, ...]) -> Queue:
    """A row of `queues`."""
    project_id, deployment_id, name, limit = row
    return Queue(project_id=project_id, deployment_id=deployment_id, name=name, concurrency_limit=limit)


def worker(row: tuple[Any, ...]) -> Worker:
    """A row of `workers`."""
    identity, project_id, deployment_id, mode, url, most, capabilities, created_at = row
    return Worker(
        id=identity,
        project_id=project_id,
        deployment_id=deployment_id,
        mode=mode,
        url=url,
        max_concurrent=most,
        capabilities=capabilities,
        created_at=created_at,
    )
