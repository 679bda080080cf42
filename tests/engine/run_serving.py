"""An engine of runs on a real store, which can be killed and made again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from dormice.domain.limits import Limits, MachineDefaults
from dormice.engine.clock import SystemClock
from dormice.engine.engine import Engine
from dormice.engine.orders import Caller
from dormice.engine.runs.commands import EndsOfCommands
from dormice.engine.runs.engine import RunEngine
from dormice.engine.runs.policy import RunPolicy
from dormice.store.projects import Project
from dormice.store.sealing import Sealer
from dormice.store.sqlite import SqliteStore
from dormice.store.workflows import WholeStore
from dormice.workers.interface import Pusher


@dataclass
class RunServer:
    """One life of a server."""

    engine: Engine
    runs: RunEngine
    store: SqliteStore
    caller: Caller
    project: Project
    clock: SystemClock

    def store_now(self) -> int:
        """What the server takes for the present moment."""
        return self.clock.now()


@contextlib.asynccontextmanager
async def serving_runs(
    directory: Path,
    clock: SystemClock,
    pusher: Pusher,
    policy: RunPolicy | None = None,
    wrap: Callable[[WholeStore], WholeStore] = lambda store: store,
) -> AsyncIterator[RunServer]:
    """Run the engine on the store in `directory`; leaving the block ends it as a kill would, but for the store's lock."""
    sealer = Sealer.load(directory / "sealing-key")
    store = SqliteStore.open(directory / "dormice.sqlite3", sealer)
    others = asyncio.all_tasks()
    try:
        async with asyncio.TaskGroup() as group:
            ends = EndsOfCommands()
            engine = Engine(
                store=wrap(store),
                clock=clock,
                limits=Limits(),
                defaults=MachineDefaults(),
                fingerprint=sealer.request_hash,
                group=group,
                observer=ends,
            )
            runs = RunEngine(
                store=store,
                executions=engine.executions,
                pusher=pusher,
                clock=clock,
                policy=policy or RunPolicy(),
                limits=Limits(),
                in_flight=engine.in_flight,
                tasks=engine.tasks,
                group=group,
                failing=engine.health.failing,
            )
            ends.bind(runs.commands)
            organization = await store.keys.ensure_organization("default", clock.now())
            caller = Caller(organization, "key-1", admin=True)
            await engine.load()
            await runs.start()
            await engine.start()
            project = await runs.registry.project(caller, None)
            try:
                yield RunServer(engine, runs, store, caller, project, clock)
            finally:
                for task in asyncio.all_tasks() - others - {asyncio.current_task()}:
                    task.cancel()
    finally:
        await store.close()
