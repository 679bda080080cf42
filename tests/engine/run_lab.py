"""An engine of runs on a real store whose clock stands still until a test moves it, and which can be ended and made again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from dormice.domain.limits import Limits
from dormice.domain.moments import rfc3339
from dormice.domain.run import Run
from dormice.engine.clock import SystemClock
from dormice.engine.engine import Engine
from dormice.engine.orders import Caller
from dormice.engine.runs.engine import RunEngine
from dormice.engine.runs.events import EventOrder
from dormice.engine.runs.orders import ScheduleOrder, TriggerOrder
from dormice.engine.runs.policy import RunPolicy
from dormice.store.interface import Store
from dormice.store.lists import RunFilter
from dormice.store.projects import Definition, Project
from dormice.store.workflows import Attempt, Moved, RunResult
from dormice.workers.interface import CancelAnswer, PushAnswer
from tests.engine.scripted_node import serving

SECOND_NS = 1_000_000_000
_ALWAYS = ":00.000000+00:00"


class StoppedClock(SystemClock):
    """A clock that only a test moves."""

    def __init__(self, at: str) -> None:
        self._wall_ns = self._steady_ns = round(datetime.fromisoformat(at).timestamp()) * SECOND_NS
        super().__init__(lambda: self._wall_ns, lambda: self._steady_ns)

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self._wall_ns += round(seconds * SECOND_NS)
        self._steady_ns += round(seconds * SECOND_NS)

    def set_by(self, seconds: float) -> None:
        """Put the host's clock forward or back, or have the host suspended for so long; the steady one stays."""
        self._wall_ns += round(seconds * SECOND_NS)


class NoWorkers:
    """A way to workers of which there are none."""

    async def execute(self, url: str, worker_id: str, body: bytes) -> PushAnswer:
        """Reach nobody."""
        return PushAnswer.REFUSED

    async def cancel(self, url: str, worker_id: str, run_id: str) -> CancelAnswer:
        """Reach nobody."""
        return CancelAnswer.FAILED

    async def listens(self, url: str, worker_id: str) -> bool:
        """Reach nobody."""
        return True

    async def held(self, url: str, worker_id: str) -> int | None:
        """Reach nobody."""
        return None


class RunLab:
    """Short ways to what tests of runs ask."""

    def __init__(self, engine: RunEngine, host: Engine, clock: StoppedClock, project: Project, other: Project) -> None:
        self.engine = engine
        self.health = host.health
        self.keys = host.keys
        self.store: Any = host._store
        self.clock = clock
        self.project = project
        self.other = other
        """Another project of the same organization."""
        self._settling = asyncio.Lock()

    async def settle(self) -> None:
        """Let the agenda do all that is due, and what follows from it at this moment."""
        async with self._settling:  # a hundred that look again and again leave the store no time to get on
            quiet = 0
            while quiet < 2:  # once: what had begun before has ended; twice: and nothing followed from it
                agenda, now = self.engine._agenda, self.clock.steady()
                due = any(entry[0] <= now and agenda._is_current(entry) for entry in agenda._heap)
                quiet = 0 if due or self.engine.triggers._dirty else quiet + 1
                await self._turn()

    async def _turn(self) -> None:
        done = asyncio.Event()

        async def act() -> None:
            done.set()

        self.engine._agenda.put(0, done, act)  # before all others, so that the agenda looks at its clock
        await done.wait()

    async def forward(self, seconds: float) -> None:
        """Let time pass, and all that is due then happen."""
        self.clock.forward(seconds)
        await self.settle()

    async def register(
        self, deployment: str, workflow: str = "flow", *, project: Project | None = None, **flags: Any
    ) -> None:
        """Register a workflow, a moment after all before."""
        self.clock.forward(0.001)
        project = project or self.project
        await self.engine.registry.deploy(project, deployment)
        await self.engine.registry.define(
            Definition(
                project_id=project.id,
                deployment_id=deployment,
                kind="workflow",
                id=workflow,
                created_at=0,
                updated_at=0,
                **flags,
            )
        )

    async def schedule(self, cron: str, timezone: str = "UTC", **fields: Any) -> str:
        """Put a schedule; return its id."""
        order = ScheduleOrder(**{"workflow_id": "flow", "key": "k", "cron": cron, "timezone": timezone, **fields})
        return (await self.engine.schedules.put(self.project, order)).id

    async def trigger(
        self, deployment: str = "d1", *, project: Project | None = None, batch_size: int = 1, **fields: Any
    ) -> None:
        """Register a trigger, and let it act."""
        order = {"workflow_id": "flow", "deployment_id": deployment, "topic": "t", "batch_size": batch_size, **fields}
        await self.engine.triggers.register(project or self.project, TriggerOrder(**order))
        await self.settle()

    async def publish(self, *data: Any, topic: str = "t", project: Project | None = None) -> None:
        """Publish events together, and let triggers act."""
        orders = [EventOrder(event_type="told", data=json.dumps(one).encode()) for one in data]
        await self.engine.events.publish(project or self.project, topic, orders)
        await self.settle()

    async def runs(self, project: Project | None = None) -> list[Run]:
        """Return the runs of a project, oldest first."""
        found = (await self.store.lists.page((project or self.project).id, RunFilter(), before=None, limit=10_000)).runs
        return list(reversed(found))

    async def payloads(self, project: Project | None = None) -> list[Any]:
        """Return what the runs of a project were given, the oldest first."""
        return [json.loads((await self.store.runs.input(run)).payload) for run in await self.runs(project)]

    async def ticked(self) -> list[str]:
        """Return the moments that scheduled runs were made for, in UTC, without what is always the same."""
        return [payload["timestamp"].removesuffix(_ALWAYS) for payload in await self.payloads()]

    async def outcomes(self, schedule_id: str) -> list[tuple[str, str]]:
        """Return what became of ticks, the oldest first."""
        found = await self.engine.schedules.ticks(self.project, schedule_id, before=None, limit=1_000)
        return [(rfc3339(tick.at).removesuffix(_ALWAYS), tick.outcome.value) for tick in reversed(found)]

    async def finish(self, run: Run) -> None:
        """End a run as a worker would."""
        now = self.clock.now()
        claimed = await self.store.runs.claim(run.id, "worker", now=now, accepted_at=self.clock.steady())
        assert isinstance(claimed, Moved)
        done = await self.store.runs.complete(run.id, Attempt(worker_id="worker"), RunResult(result=b"1"), now=now)
        assert isinstance(done, Moved)
        self.engine._ledger.apply([*claimed.changed, *done.changed])


@contextlib.asynccontextmanager
async def lab(
    directory: Path,
    clock: StoppedClock,
    policy: RunPolicy | None = None,
    wrap: Callable[[Store], Store] = lambda store: store,
) -> AsyncIterator[RunLab]:
    """Run an engine of runs on the store in `directory`; leaving the block ends it as a kill would."""
    async with serving(directory, clock, wrap=wrap) as server:
        host, caller = server.engine, server.caller
        store: Any = host._store
        engine = RunEngine(
            store=store,
            executions=host.executions,
            pusher=NoWorkers(),
            clock=clock,
            policy=policy or RunPolicy(),
            limits=Limits(),
            in_flight=host.in_flight,
            tasks=host.tasks,
            group=host.tasks._group,
            failing=host.health.failing,
        )
        await engine.start()
        project = await engine.registry.project(caller, None)
        other = await _other_project(engine, caller)
        running = RunLab(engine, host, clock, project, other)
        await running.settle()
        yield running


async def _other_project(engine: RunEngine, caller: Caller) -> Project:
    found = [project for project in engine.registry.projects(caller) if not project.is_default]
    return found[0] if found else await engine.registry.make_project(caller, "other", None)
