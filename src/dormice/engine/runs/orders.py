"""What callers ask of the engine of runs: values checked for form by the API, judged by the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from msgspec import Struct

from dormice.domain.automation import CatchUp
from dormice.domain.run import Json
from dormice.engine.orders import Idempotency
from dormice.store.projects import Project


def in_project(idempotency: Idempotency | None, project: Project) -> Idempotency | None:
    """Return an Idempotency-Key that counts in one project only."""
    return idempotency and replace(idempotency, scope=f"{project.id} {idempotency.scope}")


class RunOrder(Struct, frozen=True, kw_only=True):
    """A run to be made."""

    workflow_id: str
    payload: Json
    queue_name: str | None = None
    queue_limit: int | None = None
    concurrency_key: str | None = None
    priority: int = 0
    initial_state: Json | None = None
    run_timeout_seconds: int | None = None


class Submission(Struct, frozen=True, kw_only=True):
    """Runs that are made together, and what they share."""

    runs: Sequence[RunOrder]
    batch: bool = False
    deployment_id: str | None = None
    parent_id: str | None = None
    step_key: str | None = None
    wait: bool = False
    """The parent waits for them."""
    session_id: str | None = None
    user_id: str | None = None
    channel_context: Json | None = None
    traceparent: str | None = None


class WorkerOrder(Struct, frozen=True, kw_only=True):
    """A worker that comes."""

    deployment_id: str | None
    mode: str
    url: str | None
    max_concurrent: int
    capabilities: Json


class ScheduleOrder(Struct, frozen=True, kw_only=True):
    """A schedule to be made, or what is to become of the one with this workflow and key."""

    workflow_id: str
    key: str
    cron: str
    timezone: str
    catch_up: CatchUp | None = None
    """None: as it is, `none` for a new one."""
    overlap: bool | None = None
    """None: as it is, False for a new one."""


class TriggerOrder(Struct, frozen=True, kw_only=True):
    """A trigger to be made, or what is to become of the one with this workflow and topic."""

    workflow_id: str
    deployment_id: str
    topic: str
    batch_size: int
    batch_timeout_seconds: int | None = None
    queue_name: str | None = None
