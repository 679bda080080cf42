"""A project with a deployment, and short ways to bring runs into any state."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from msgspec.structs import replace

from dormice.domain.ids import uuid7
from dormice.domain.run import Run, WaitKind
from dormice.store.interface import IdempotencyClaim
from dormice.store.projects import Project
from dormice.store.workflows import (
    Attempt,
    Moved,
    NewEvent,
    NewRun,
    NewWait,
    ParentWait,
    RunResult,
    Submitted,
    WholeStore,
)
from tests.store.world import START

MOST_CRASHES = 2


@dataclass
class RunWorld:
    """What most tests of runs begin with. Time goes on by a millisecond with each thing that is asked for."""

    store: WholeStore
    organization: str
    project: Project
    now: int = START

    @classmethod
    async def made(cls, store: WholeStore, *, default: bool = True) -> RunWorld:
        organization = await store.keys.ensure_organization("default", START)
        project = Project(
            id=str(uuid4()),
            organization_id=organization,
            name="p",
            is_default=default,
            created_at=START,
            updated_at=START,
        )
        await store.projects.ensure_project(project)
        await store.projects.deploy(project.id, "d", START)
        return cls(store, organization, project)

    def tick(self) -> int:
        self.now += 1_000
        return self.now

    def new(self, workflow_id: str = "w", **fields: Any) -> NewRun:
        now = self.tick()
        new = NewRun(
            id=uuid7(now // 1_000, os.urandom(10)),
            project_id=self.project.id,
            workflow_id=workflow_id,
            payload=b'{"n": 1}',
            deployment_id="d",
            queue_name=workflow_id,
            now=now,
        )
        return replace(new, **fields)

    async def submit(
        self, *news: NewRun, wait: ParentWait | None = None, claim: IdempotencyClaim | None = None
    ) -> Submitted:
        made = await self.store.runs.submit(news, wait, claim)
        assert isinstance(made, Submitted)
        return made

    async def queued(self, **fields: Any) -> Run:
        [run] = (await self.submit(self.new(**fields))).runs
        return run

    async def running(self, run: Run | None = None, **fields: Any) -> Run:
        run = run or await self.queued(**fields)
        claimed = await self.store.runs.claim(run.id, "worker", now=self.tick(), accepted_at=self.now)
        assert isinstance(claimed, Moved)
        return claimed.run

    async def child(self, parent: Run, step_key: str = "child", **fields: Any) -> Run:
        """Submit a run for whose end the parent waits."""
        wait = ParentWait(run_id=parent.id, step_key=step_key, kind=WaitKind.RUN)
        new = self.new("child", parent_id=parent.id, root_id=parent.id, step_key=step_key, **fields)
        [run] = (await self.submit(new, wait=wait)).runs
        return run

    async def batch(self, parent: Run, count: int, step_key: str = "batch") -> list[Run]:
        """Submit runs for whose ends the parent waits."""
        batch_id = str(uuid4())
        wait = ParentWait(run_id=parent.id, step_key=step_key, kind=WaitKind.BATCH)
        news = [
            self.new("child", parent_id=parent.id, root_id=parent.id, step_key=step_key, batch_id=batch_id)
            for _ in range(count)
        ]
        return list((await self.submit(*news, wait=wait)).runs)

    async def complete(self, run: Run, result: bytes = b"1", **fields: Any) -> Moved:
        done = await self.store.runs.complete(
            run.id, Attempt(worker_id=run.worker_id), RunResult(result=result, **fields), now=self.tick()
        )
        assert isinstance(done, Moved)
        return done

    async def fail(self, run: Run, error: str = "no", *, retryable: bool = False) -> Moved:
        failed = await self.store.runs.fail(
            run.id,
            Attempt(worker_id=run.worker_id),
            error,
            retryable=retryable,
            not_before=self.now + 5,
            final_state=None,
            now=self.tick(),
        )
        assert isinstance(failed, Moved)
        return failed

    async def wait(self, run: Run, step_key: str, kind: WaitKind, **fields: Any) -> Moved:
        new = NewWait(step_key=step_key, kind=kind, **fields)
        waiting = await self.store.runs.wait(run.id, Attempt(), new, now=self.tick(), steady=self.now)
        assert isinstance(waiting, Moved)
        return waiting

    async def publish(self, topic: str, *types: str, run_id: str | None = None) -> list[Run]:
        """Publish events of these types; return the runs that they changed."""
        news = [NewEvent(id=str(uuid4()), event_type=one, data=b'{"e": 1}', run_id=run_id) for one in types]
        return list((await self.store.events.publish(self.project.id, topic, news, now=self.tick())).changed)

    async def read(self, run: Run) -> Run:
        found = await self.store.runs.get(self.project.id, run.id)
        assert found is not None
        return found
