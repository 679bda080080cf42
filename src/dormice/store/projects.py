"""The port of the store for projects and what workers say that they offer: deployments, definitions, queues, workers."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from dormice.domain.execution import Micros
from dormice.domain.run import NULL, Json


class Project(Struct, frozen=True, kw_only=True):
    """What runs, events and deployments belong to; itself an organization's."""

    id: str
    organization_id: str
    name: str
    description: str | None = None
    is_default: bool = False
    created_at: Micros
    updated_at: Micros


class Deployment(Struct, frozen=True, kw_only=True):
    """A version of the code that workers offer. Runs are pinned to one."""

    project_id: str
    id: str
    created_at: Micros
    deployed_at: Micros
    """When a worker last came with it: the greatest is what new runs get."""


class Definition(Struct, frozen=True, kw_only=True):
    """One workflow, agent or tool of a deployment."""

    project_id: str
    deployment_id: str
    kind: str
    """`workflow`, `agent` or `tool`; `agent_spec` and `tool_spec` hold what was registered of an agent or a tool itself."""
    id: str
    trigger_on_event: bool = False
    scheduled: bool = False
    spec: Json = b"{}"
    created_at: Micros
    updated_at: Micros


class Queue(Struct, frozen=True, kw_only=True):
    """A queue of a deployment and how many of its runs may be with workers at once, for each concurrency key."""

    project_id: str
    deployment_id: str
    name: str
    concurrency_limit: int | None = None


class Worker(Struct, frozen=True, kw_only=True):
    """A user's process that runs workflow functions."""

    id: str
    project_id: str
    deployment_id: str
    mode: str
    url: str | None
    max_concurrent: int
    capabilities: Json = NULL
    created_at: Micros


class ProjectStore(Protocol):
    """Projects, deployments and what they offer, queues, workers."""

    async def ensure_project(self, project: Project) -> Project:
        """Return the project with this id, made when missing; the default one of an organization is made once."""
        ...

    async def project(self, project_id: str) -> Project | None:
        """Return a project."""
        ...

    async def projects(self, organization_id: str | None) -> list[Project]:
        """Return the projects of an organization, or all."""
        ...

    async def deploy(self, project_id: str, deployment_id: str, now: Micros) -> Deployment:
        """Record a deployment, or that it came again."""
        ...

    async def deployments(self) -> list[Deployment]:
        """Return every deployment of every project."""
        ...

    async def define(self, definition: Definition) -> Definition:
        """Record a definition, or change it."""
        ...

    async def definitions(self, project_id: str | None) -> list[Definition]:
        """Return the definitions of a project, or all, the latest first."""
        ...

    async def set_queue(self, queue: Queue) -> None:
        """Record a queue with its limit, or change the limit."""
        ...

    async def queues(self) -> list[Queue]:
        """Return every queue."""
        ...

    async def add_worker(self, worker: Worker) -> None:
        """Record a worker."""
        ...

    async def remove_worker(self, worker_id: str) -> None:
        """Forget a worker."""
        ...

    async def workers(self) -> list[Worker]:
        """Return every worker."""
        ...
