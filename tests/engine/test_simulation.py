"""Engine, store and a model of nodes and guests under random faults: nothing is lost, repeated, or stuck.

A failing run names its seed; `DORMICE_SIMULATE=seed[,seed…]` takes that way again, `DORMICE_SIMULATE=a-b` many ways.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from dormice.domain.errors import DormiceError
from dormice.domain.execution import ErrorCode, Execution, ExecutionState, Stream
from dormice.domain.limits import Limits
from dormice.domain.machine import Phase
from dormice.engine import service
from dormice.engine.observer import Observer
from dormice.engine.orders import ExecutionOrder, Idempotency, MachineOrder
from dormice.store.interface import StoreUnavailable
from tests.engine.faulty_store import Faults
from tests.engine.model import ModelNode, Truth
from tests.engine.scripted_node import MovedClock, Server, serving, wire_id
from tests.wait import others_run, wait_until_async

SEEDS = os.environ.get("DORMICE_SIMULATE", "0-199")
IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112
STEPS = 60
STUCK_SECONDS = 10.0
LIMITS = Limits(running_per_machine=2)
CUT_SHORT = {ErrorCode.MACHINE_LOST, ErrorCode.EXECUTION_RUNNER_INTERRUPTED, ErrorCode.CANCELLED}


def seeds() -> list[int]:
    first, dash, last = SEEDS.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(seed) for seed in SEEDS.split(",")]


class Told(Observer):
    """What an observer heard, in all lives of the server."""

    def __init__(self) -> None:
        self.of: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def created(self, execution: Execution) -> None:
        self._note(execution, "created")

    def started(self, execution: Execution) -> None:
        self._note(execution, "started")

    def finished(self, execution: Execution) -> None:
        self._note(execution, f"finished {execution.state}")

    def _note(self, execution: Execution, what: str) -> None:
        self.of[execution.id][what] += 1


class Simulation:
    """One way through."""

    def __init__(self, seed: int, directory: Path, carelessness: float = 0.0) -> None:
        """`carelessness`: how likely the node is to lose output while its lines hold."""
        self.random = Random(seed)
        self.directory = directory
        self.clock = MovedClock()
        self.faults = Faults()
        self.truth = Truth()
        self.told = Told()
        self.patient = seed % 2 == 1
        """What is committed is told before a life ends; else a kill may come between."""
        self.cut_off: set[str] = set()
        """Executions of which a kill came between a commit and the news of it."""
        self.node = ModelNode(self.random, self.truth)
        self.node.carelessness = carelessness
        self.machines: list[str] = []
        self.promised: dict[str, str] = {}
        """Execution id -> machine id: acknowledged."""
        self.keys: dict[str, set[str]] = {}
        self.server: Server

    @asynccontextmanager
    async def life(self) -> AsyncIterator[None]:
        """One life of a server; its node outlives it."""
        async with serving(self.directory, self.clock, LIMITS, self.faults.wrap, self.told) as self.server:
            try:
                self.cut_off |= {id_ for id_ in self.promised if self.told.of[id_] < true_of(await self.record(id_))}
                yield
                if self.patient:
                    await self.check_told()
            finally:
                self.node.cut()

    async def run(self) -> None:
        async with self.life():
            self.node.connect(self.server.engine.gateway)
            for _ in range(self.random.randint(1, 2)):
                made = await self.server.engine.machines.create(
                    self.server.caller, MachineOrder(autosleep_seconds=self.random.choice((0, 5))), None
                )
                self.machines.append(made.id)
            await self.some(STEPS)
        for _ in range(self.random.randint(0, 2)):
            async with self.life():
                await self.some(STEPS // 3)
        async with self.life():
            await self.settle()
            await self.check()
            await self.check_told()

    async def some(self, steps: int) -> None:
        actions = {
            self.execute: 8,
            self.node.step: 10,
            self.talk: 16,
            self.cancel: 2,
            self.sleep: 1,
            self.wake: 1,
            self.reap: 2,
            self.connect: 3,
            self.node.cut: 1,
            self.attach: 1,
            self.kill: 1,
            self.fail: 2,
        }
        for act in self.random.choices(list(actions), list(actions.values()), k=steps):
            try:
                pending = act()
                if pending is not None:
                    await pending
            except (DormiceError, StoreUnavailable):
                pass  # refused, and nothing promised
            for _ in range(self.random.randint(0, 4)):
                await others_run()

    # What happens

    async def execute(self) -> None:
        machine_id = self.random.choice(self.machines)
        key = str(self.random.randint(0, 40))
        order = ExecutionOrder(command=("true",), cwd="/root", start_timeout_ms=self.random.choice((2_000, 900_000)))
        idempotency = Idempotency(machine_id, key, repr(order.start_timeout_ms).encode())
        made = await self.server.engine.executions.create(self.server.caller, machine_id, order, idempotency)
        self.promised[made.id] = machine_id
        self.keys.setdefault(f"{machine_id} {key}", set()).add(made.id)

    def talk(self) -> None:
        self.node.listen(self.random.randint(1, 6))
        self.node.speak(self.random.randint(1, 6))

    async def cancel(self) -> None:
        if self.promised:
            execution_id, machine_id = self.random.choice(list(self.promised.items()))
            await self.server.engine.executions.cancel(self.server.caller, machine_id, execution_id)

    async def sleep(self) -> None:
        machine_id = self.random.choice(self.machines)
        await self.server.engine.machines.sleep(self.server.caller, machine_id, revision=None, idempotency=None)

    async def wake(self) -> None:
        machine_id = self.random.choice(self.machines)
        await self.server.engine.machines.wake(self.server.caller, machine_id, revision=None, idempotency=None)

    async def reap(self) -> None:
        self.clock.forward(self.random.choice((0.5, 3, 70)))
        await self.server.engine._reaper.reap()

    def connect(self) -> None:
        if not self.node.connected or self.random.random() < 0.2:
            self.node.connect(self.server.engine.gateway)

    def attach(self) -> None:
        if self.node.guests:
            self.node.attach(self.random.choice(list(self.node.guests)))

    def kill(self) -> None:
        if self.node.guests:
            self.node.kill(self.random.choice(list(self.node.guests)), "killed by the test")

    def fail(self) -> None:
        operations = ("create", "progress", "claim", "end_boot", "end_unstarted", "machine_ready", "advance")
        self.faults.fail(self.random.choice((*operations, "request_cancel")), self.random.randint(1, 2))

    # How it must end

    async def settle(self) -> None:
        self.faults.heal()
        self.node.connect(self.server.engine.gateway)
        until = asyncio.get_running_loop().time() + STUCK_SECONDS
        while left := await self.left():
            assert asyncio.get_running_loop().time() < until, f"stuck: {left}"
            if not self.node.connected:
                self.node.connect(self.server.engine.gateway)
            self.node.step()
            self.node.listen(1_000)
            self.node.speak(1_000)
            await others_run(0.001)

    async def left(self) -> list[str]:
        open_ = [id_ for id_ in self.promised if not (await self.record(id_)).terminal]
        steady = (Phase.RUNNING, Phase.SLEEPING, Phase.FAILED)
        for machine_id in self.machines:
            machine = await self.server.engine.machines.get(self.server.caller, machine_id)
            if machine.phase not in steady:
                open_.append(f"{machine_id} {machine.phase}")
        return open_

    async def record(self, execution_id: str) -> Execution:
        return await self.server.engine.executions.get(self.server.caller, self.promised[execution_id], execution_id)

    async def check(self) -> None:
        assert all(count == 1 for count in self.truth.starts.values()), "something was started twice"
        assert all(len(made) == 1 for made in self.keys.values()), "a key made two executions"
        for execution_id in self.promised:
            await self.check_one(await self.record(execution_id))

    async def check_one(self, record: Execution) -> None:
        executions, process = self.server.engine.executions, self.truth.processes.get(wire_id(record.id))
        _, entries = await executions.entries(
            self.server.caller, record.machine_id, record.id, after=0, limit=1_000, max_bytes=1 << 20
        )
        assert [entry.sequence for entry in entries] == list(range(1, record.last_sequence + 1))
        for stream in Stream:
            kept = b"".join(entry.data for entry in entries if entry.stream is stream)
            wrote = b"" if process is None else process.written[stream.value]
            assert wrote.startswith(kept), f"{stream} holds what was never written"
            if record.error_code not in CUT_SHORT:
                assert kept == wrote, f"{record.id}: {stream.name} of {record.state} lost output"
        if record.state is ExecutionState.SUCCEEDED:
            assert process is not None
            assert process.end == (1, 0, False)
        if record.error_code is ErrorCode.NONZERO_EXIT:
            assert process is not None
            assert process.end == (1, record.exit_code, False)
        if record.state is ExecutionState.EXPIRED:
            assert process is None, "expired, and yet it ran"

    async def check_told(self) -> None:
        """Each thing was told once; one that is committed is told within a few turns of the loop."""

        async def heard() -> bool:
            return all(
                [self.told.of[id_] == true_of(await self.record(id_)) for id_ in self.promised.keys() - self.cut_off]
            )

        try:
            await wait_until_async(heard, STUCK_SECONDS, "all was told, and told once")
        finally:
            for execution_id in self.promised:
                told, true = self.told.of[execution_id], true_of(await self.record(execution_id))
                assert told <= true, f"{execution_id}: told {told}, true is {true}"


def true_of(record: Execution) -> Counter[str]:
    """What there is to be told of an execution."""
    true = Counter(["created", *(["started"] if record.started_at is not None else ())])
    true.update([f"finished {record.state}"] if record.terminal else ())
    return true


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "FIRST_BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(service, "LAST_BACKOFF_SECONDS", 0.01)


async def simulate(seed: int, carelessness: float = 0.0) -> Simulation:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as directory:
        simulation = Simulation(seed, Path(directory), carelessness)
        try:
            await simulation.run()
        except Exception as error:
            error.add_note(f"take this way again: DORMICE_SIMULATE={seed}")
            raise
        return simulation


async def test_nothing_is_lost_repeated_or_stuck() -> None:
    for seed in seeds():
        await simulate(seed)


async def test_output_that_the_node_loses_is_not_missed_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    ways = seeds()[:50]
    for seed in ways:
        await simulate(seed, carelessness=0.5)
    assert "has ended without" not in caplog.text
    assert "asking again" in caplog.text or len(ways) < 50  # one way alone may lose nothing
