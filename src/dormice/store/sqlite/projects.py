"""Projects, deployments and what they offer, queues, workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apsw

from dormice.domain.execution import Micros
from dormice.store.projects import Definition, Deployment, Project, Queue, Worker
from dormice.store.sqlite import run_rows, statements
from dormice.store.sqlite.reader import Reader
from dormice.store.sqlite.writer import Writer

_SQL = statements.load("projects.sql")
T = TypeVar("T")


class SqliteProjects:
    """ProjectStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def ensure_project(self, project: Project) -> Project:
        return await self._writer.run(lambda db: _ensure_project(db, project))

    async def project(self, project_id: str) -> Project | None:
        row = self._reader.point(lambda db: db.execute(_SQL["project"], (project_id,)).get)
        return None if row is None else run_rows.project(row)

    async def projects(self, organization_id: str | None) -> list[Project]:
        return await self._all("projects", run_rows.project, (organization_id,))

    async def deploy(self, project_id: str, deployment_id: str, now: Micros) -> Deployment:
        return run_rows.deployment(await self._run("deploy", (project_id, deployment_id, now)))

    async def deployments(self) -> list[Deployment]:
        return await self._all("deployments", run_rows.deployment)

    async def define(self, definition: Definition) -> Definition:
        values = (
            definition.project_id,
            definition.deployment_id,
            definition.kind,
            definition.id,
            definition.trigger_on_event,
            definition.scheduled,
            definition.spec,
            definition.created_at,
            definition.updated_at,
        )
        return run_rows.definition(await self._run("define", values))

    async def definitions(self, project_id: str | None) -> list[Definition]:
        found = await self._all("definitions", run_rows.definition, (project_id,))
        return sorted(found, key=lambda definition: definition.created_at, reverse=True)

    async def set_queue(self, queue: Queue) -> None:
        await self._run("set_queue", (queue.project_id, queue.deployment_id, queue.name, queue.concurrency_limit))

    async def queues(self) -> list[Queue]:
        return await self._all("queues", run_rows.queue)

    async def add_worker(self, worker: Worker) -> None:
        values = (
            worker.id,
            worker.project_id,
            worker.deployment_id,
            worker.mode,
            worker.url,
            worker.max_concurrent,
            worker.capabilities,
            worker.created_at,
        )
        await self._run("add_worker", values)

    async def remove_worker(self, worker_id: str) -> None:
        await self._run("remove_worker", (worker_id,))

    async def workers(self) -> list[Worker]:
        return await self._all("workers", run_rows.worker)

    async def _run(self, name: str, values: Sequence[Any]) -> Any:
        return await self._writer.run(lambda db: db.execute(_SQL[name], tuple(values)).get)

    async def _all(self, name: str, make: Callable[[tuple[Any, ...]], T], values: tuple[Any, ...] = ()) -> list[T]:
        rows = await self._reader.scan(lambda db: db.execute(_SQL[name], values).fetchall())
        return [make(row) for row in rows]


def _ensure_project(db: apsw.Connection, project: Project) -> Project:
    values = (
        project.id,
        project.organization_id,
        project.name,
        project.description,
        project.is_default,
        project.created_at,
        project.updated_at,
    )
    db.execute(_SQL["ensure_project"], values)
    row = db.execute(_SQL["project"], (project.id,)).get
    if row is None and project.is_default:  # the organization has another default one
        row = db.execute(_SQL["default_project"], (project.organization_id,)).get
    if row is None:
        raise LookupError(f"no project {project.id}")
    return run_rows.project(row)
