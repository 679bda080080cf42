"""What the document of this surface says that the other one's does not."""

from __future__ import annotations

from collections.abc import Sequence

from dormice.api.http.operation import Operation, Parameter
from dormice.api.openapi import Surface, describing
from dormice.api.workflows.door import WorkflowError, operation
from dormice.domain.limits import Limits

WORKFLOWS = Surface(
    title="Dormice: workflows",
    description="Durable runs of workflow functions in your own worker processes.",
    tags={
        "runs": "Runs of workflows: asking for them, and what becomes of them.",
        "approvals": "What suspended runs ask of people.",
        "events": "Events of topics: published, read, followed.",
        "schedules": "Runs at their times.",
        "triggers": "Runs that begin with events.",
        "workers": "Workers, and what waits for them.",
        "definitions": "What workers say that they offer.",
        "attempts": "What workers report of the runs that they have.",
        "sessions": "What agents remember, and what was said.",
        "traces": "What workers tell of their work.",
        "projects": "Projects, and keys that may use one project only.",
        "service": "The server itself.",
    },
    ids={
        "execution_id": "A run's id, a UUID.",
        "root_execution_id": "The id of a run that no run has asked for, a UUID.",
        "trace_id": "The root run's id, with or without dashes.",
        "step_key": "A step's key; it may have slashes.",
        "project_id": "A project's id, a UUID.",
        "worker_id": "A worker's id, a UUID.",
        "schedule_id": "A schedule's id, a UUID.",
    },
    id_chars=None,
    header=Parameter(
        "X-Project-ID",
        "header",
        {"type": "string", "format": "uuid"},
        "The project. Absent: the key's own one, or the organization's default one.",
    ),
    refusals={
        401: "No API key, or one that is not valid.",
        403: "The key is valid but may not do this, or not in this project.",
        404: "There is no such thing in this project.",
        409: "The request does not fit the present state.",
        429: "Too much at once; `retry-after` says when to come again.",
        503: "Something that the request needs is not there just now.",
    },
    always=frozenset({401, 403, 429, 503}),
    refusal=WorkflowError,
    otherwise=WorkflowError,
    otherwise_type="application/json",
    otherwise_means="Every other error: 400 for bad input, 413, 415, 422.",
)


def document_operation(operations: Sequence[Operation], limits: Limits) -> Operation:
    """Return the route of the document of these routes."""
    return operation(
        "service",
        "workflowsOpenapi",
        "GET",
        "/api-docs/openapi.json",
        "This document",
        describing(operations, limits, WORKFLOWS),
        "application/json",
        guarded=False,
    )
