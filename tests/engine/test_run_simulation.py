"""The engine of runs, a real store and a model of workers under random faults: nothing is lost, run again, or stuck, and no limit is exceeded.

A failing run names its seed; `DORMICE_SIMULATE_RUNS=seed[,seed…]` takes that way again, `DORMICE_SIMULATE_RUNS=a-b` many ways.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from dormice.domain.errors import Conflict
from dormice.domain.run import Run, RunState
from dormice.engine.orders import Idempotency
from dormice.engine.runs import dispatcher
from dormice.engine.runs.events import EventOrder
from dormice.engine.runs.orders import RunOrder, Submission
from dormice.engine.runs.policy import RunPolicy
from tests.engine.model_workers import LIMITS, SLEEP_SECONDS, TOPIC, ModelWorkers, Truth
from tests.engine.run_serving import RunServer, serving_runs
from tests.engine.scripted_node import MovedClock
from tests.wait import others_run

SEEDS = os.environ.get("DORMICE_SIMULATE_RUNS", "0-59")
IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112
STEPS = 80
ROUNDS = 400
POLICY = RunPolicy(crashes=1_000)


def seeds() -> list[int]:
    first, dash, last = SEEDS.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(seed) for seed in SEEDS.split(",")]


class Simulation:
    """One way through."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.random = Random(seed)
        self.directory = directory
        self.clock = MovedClock()
        self.truth = Truth()
        self.workers = ModelWorkers(self.random, self.truth)
        self.promised: dict[str, int] = {}
        """Run id -> the result that it must have: acknowledged."""
        self.cancelled: set[str] = set()
        self.server: RunServer

    @asynccontextmanager
    async def life(self) -> AsyncIterator[None]:
        """One life of a server; the workers outlive it."""
        async with serving_runs(self.directory, self.clock, self.workers, POLICY) as self.server:
            await self.workers.begin(self.server)
            yield

    async def run(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            async with self.life():
                await self.some(STEPS)
        self.workers.faulty = False
        async with self.life():
            await self.settle()
            await self.check()

    async def some(self, steps: int) -> None:
        actions = {
            self.submit: 10,
            self.work: 40,
            self.cancel: 2,
            self.publish: 2,
            self.kill: 1,
            self.silence: 1,
            self.abandon: 1,
            self.time: 3,
        }
        for _ in range(steps):
            [action] = self.random.choices(list(actions), list(actions.values()))
            await action()
            await others_run()

    async def submit(self) -> None:
        number, key = len(self.promised), self.random.choice((None, "a"))
        payload = b'{"n": %d%s}' % (number, b"" if key is None else b', "key": "a"')
        workflow_id = self.random.choice(list(LIMITS))
        order = RunOrder(workflow_id=workflow_id, payload=payload, concurrency_key=key)
        idempotency = Idempotency("POST /run", f"key-{number}", payload)
        for _ in range(self.random.choice((1, 1, 2))):
            [run] = await self.server.runs.runs.submit(
                self.server.caller, self.server.project, Submission(runs=[order], deployment_id="d"), idempotency
            )
            self.promised[run.id] = number

    async def work(self) -> None:
        for _ in range(self.random.randint(1, 8)):
            await self.workers.step()

    async def cancel(self) -> None:
        if self.promised:
            run_id = self.random.choice(list(self.promised))
            try:
                await self.server.runs.runs.cancel(self.server.project, run_id)
            except Conflict:
                return
            self.cancelled.add(run_id)

    async def publish(self) -> None:
        orders = [EventOrder(event_type="e", data=b"{}")]
        await self.server.runs.events.publish(self.server.project, TOPIC, orders)

    async def kill(self) -> None:
        await self.workers.restart(self.random.choice(self.workers.workers))

    async def abandon(self) -> None:
        await self.workers.abandon(self.random.choice(self.workers.workers))

    async def silence(self) -> None:
        worker = self.random.choice(self.workers.workers)
        worker.silent = not worker.silent

    async def time(self) -> None:
        self.clock.forward(self.random.choice((0.1, 6, 31, 100)))
        await self.workers.heartbeat()
        self.server.runs.wake()

    async def settle(self) -> None:
        """Heal everything; then all must end."""
        for worker in self.workers.workers:
            worker.silent = False
        for _ in range(ROUNDS):
            await self.workers.heartbeat()
            await self.publish()
            for _ in range(20):
                await self.workers.step()
                await others_run()
            if not await self.server.store.runs.open():
                return
            self.clock.forward(SLEEP_SECONDS / 2)
            self.server.runs.wake()
        raise AssertionError(f"stuck: {await self.server.store.runs.open()}")

    async def check(self) -> None:
        assert not self.truth.violations
        for run_id, number in self.promised.items():
            run = await self.server.runs.runs.get(self.server.project, run_id)
            assert run.state in {RunState.COMPLETED, RunState.CANCELLED}, run
            if run.state is RunState.CANCELLED:
                assert run_id in self.cancelled
            else:
                await self._check_completed(run, number)
        assert len(set(self.promised.values())) == len(self.promised), "a key made two runs"

    async def _check_completed(self, run: Run, number: int) -> None:
        assert (await self.server.runs.runs.record(run))[1].result == str(number).encode()
        found = {step.step_key for step in await self.server.store.runs.steps(run)}
        more = {"parent": {"children"}, "fan": {"children"}, "sleeper": {"nap"}, "listener": {"ear"}}
        assert found == {"first", "last"} | more.get(run.workflow_id, set())
        assert all((run.id, key) in self.truth.ran for key in ("first", "last"))
        assert run.retry_count == (2 if run.workflow_id == "flaky" else 0)


@pytest.mark.timeout(300)
def test_no_run_is_lost_or_stuck_and_no_step_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "REFUSED_SECONDS", (0.0, 0.0))
    for seed in seeds():
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as directory:
            try:
                asyncio.run(Simulation(seed, Path(directory)).run())
            except BaseException as error:
                error.add_note(f"DORMICE_SIMULATE_RUNS={seed}")
                raise
