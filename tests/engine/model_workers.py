"""A model of foreign workers: they replay workflows by the contract, die, fall silent, and lose what they were sent or answered.

It runs one call at a time, when the simulation says so. What it has really done is the truth that the store is held against.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from dormice.domain.errors import Conflict, DormiceError, NotFound
from dormice.domain.run import Step, WaitKind
from dormice.engine.runs.orders import RunOrder, Submission, WorkerOrder
from dormice.store.workflows import Attempt, NewWait, RunResult
from dormice.workers.interface import CancelAnswer, PushAnswer
from tests.engine.run_serving import RunServer

LIMITS: dict[str, int | None] = {"plain": 2, "parent": None, "fan": None, "sleeper": 3, "listener": None, "flaky": 1}
TOPIC = "news"
SLEEP_SECONDS = 30
FAILURES = 2


class Gone(Exception):
    """The attempt ends here: it waits, or its writes do not count any more."""


@dataclass
class Truth:
    """What workers have really done."""

    ran: Counter[tuple[str, str]] = field(default_factory=Counter)
    recorded: set[tuple[str, str]] = field(default_factory=set)
    """Steps whose record was acknowledged."""
    violations: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Task:
    """One attempt in a worker."""

    run_id: str
    workflow_id: str
    lane: tuple[str, str | None]
    retry_count: int
    calls: AsyncIterator[None]
    cancelled: bool = False


@dataclass(eq=False)
class ModelWorker:
    """One process at one address. It has a new id after each start."""

    url: str
    id: str = ""
    tasks: dict[str, Task] = field(default_factory=dict)
    silent: bool = False
    """Nothing that it sends arrives, nor anything that is sent to it; it goes on."""


class ModelWorkers:
    """Pusher, and the processes behind it."""

    def __init__(self, random: Random, truth: Truth) -> None:
        self.random = random
        self.truth = truth
        self.workers = [ModelWorker(f"http://w{number}") for number in range(2)]
        self.faulty = True
        self.server: RunServer

    # What the server calls

    async def execute(self, url: str, worker_id: str, body: bytes) -> PushAnswer:
        worker = next(one for one in self.workers if one.url == url)
        if worker.silent:
            return PushAnswer.AMBIGUOUS
        if worker.id != worker_id:
            return PushAnswer.MISMATCH if worker.id else PushAnswer.REFUSED
        luck = self.random.random() if self.faulty else 1.0
        if luck < 0.05:
            return PushAnswer.REFUSED
        if luck < 0.10:
            return PushAnswer.FULL
        if luck < 0.14:
            return PushAnswer.REJECTED
        if luck < 0.18:
            return PushAnswer.AMBIGUOUS
        self._take(worker, json.loads(body))
        return PushAnswer.AMBIGUOUS if luck < 0.22 else PushAnswer.ACCEPTED

    async def cancel(self, url: str, worker_id: str, run_id: str) -> CancelAnswer:
        worker = next(one for one in self.workers if one.url == url)
        if worker.silent or worker.id != worker_id or (self.faulty and self.random.random() < 0.1):
            return CancelAnswer.FAILED
        task = worker.tasks.get(run_id)
        if task is None:
            return CancelAnswer.UNKNOWN
        task.cancelled = True
        return CancelAnswer.REQUESTED

    async def listens(self, url: str, worker_id: str) -> bool:
        return bool(next(one for one in self.workers if one.url == url).id)

    async def held(self, url: str, worker_id: str) -> int | None:
        worker = next(one for one in self.workers if one.url == url)
        return None if worker.silent or worker.id != worker_id else len(worker.tasks)

    def _take(self, worker: ModelWorker, given: dict[str, Any]) -> None:
        run_id, workflow_id = given["execution_id"], given["workflow_id"]
        if run_id in worker.tasks:
            self.truth.violations.append(f"{run_id} was given to a worker that has it")
        lane = (workflow_id, (given["payload"] or {}).get("key"))
        task = Task(run_id, workflow_id, lane, given["retry_count"], iter_calls(lambda: None))
        task.calls = self._calls(worker, task, given)
        worker.tasks[run_id] = task
        heard = [one for one in self.workers if not one.silent and self._is_known(one)]
        together = sum(other.lane == lane for one in heard for other in one.tasks.values())
        limit = LIMITS[workflow_id]
        if limit is not None and together > limit:
            self.truth.violations.append(f"{together} runs of {lane} at once, and {limit} are allowed")

    def _is_known(self, worker: ModelWorker) -> bool:
        """Whether the server has not lost it; one that it has lost goes on with what it had until it is told so."""
        return bool(worker.id) and self.server.runs.workers.find(self.server.project, worker.id) is not None

    # What workers do

    async def begin(self, server: RunServer) -> None:
        """Meet a server: a new one knows the workers of the old one."""
        self.server = server
        for worker in self.workers:
            if not worker.id:
                await self.restart(worker)

    async def restart(self, worker: ModelWorker) -> None:
        """Kill a worker and start it again."""
        worker.tasks.clear()
        worker.silent, worker.id = False, ""
        runs, project = self.server.runs, self.server.project
        order = WorkerOrder(deployment_id="d", mode="push", url=worker.url, max_concurrent=4, capabilities=b"{}")
        worker.id = (await runs.workers.register(project, order)).id
        await runs.registry.set_queues(project, "d", list(LIMITS.items()))
        runs.workers.online(project, worker.id)

    async def heartbeat(self) -> None:
        """Have every worker that is not silent be heard of."""
        for worker in self.workers:
            if not worker.silent and not self.server.runs.workers.heartbeat(self.server.project, worker.id):
                await self.restart(worker)

    async def step(self) -> bool:
        """Have one attempt make one call; return False when there is none."""
        busy = [
            worker for worker in self.workers if worker.tasks and not (worker.silent and self.random.random() < 0.7)
        ]
        if not busy:
            return False
        worker = self.random.choice(busy)
        task = self.random.choice(list(worker.tasks.values()))
        if task.cancelled:
            await self._confirm(worker, task)
            return True
        try:
            await anext(task.calls)
        except (StopAsyncIteration, Gone):
            if worker.tasks.get(task.run_id) is task:
                del worker.tasks[task.run_id]
        return True

    async def abandon(self, worker: ModelWorker) -> None:
        """Have a worker stop in good order."""
        for task in list(worker.tasks.values()):
            await self._confirm(worker, task)

    async def _confirm(self, worker: ModelWorker, task: Task) -> None:
        worker.tasks.pop(task.run_id, None)
        if not worker.silent:
            with suppress(DormiceError):
                await self.server.runs.attempts.ended(self.server.project, task.run_id, Attempt(worker_id=worker.id))

    async def _calls(self, worker: ModelWorker, task: Task, given: dict[str, Any]) -> AsyncIterator[None]:
        """One attempt, one call to the server at a time."""
        workflow_id, payload = task.workflow_id, given["payload"] or {}
        async for _ in self._step(worker, task, "first"):
            yield
        if workflow_id == "flaky" and task.retry_count < FAILURES:
            await self._write(worker, lambda: self._fail(worker, task))
            return
        if workflow_id in {"parent", "fan"}:
            async for _ in self._children(worker, task, 1 if workflow_id == "parent" else 3):
                yield
        if workflow_id == "sleeper":
            due = self.server.store_now() + SLEEP_SECONDS * 1_000_000
            wait = NewWait(step_key="nap", kind=WaitKind.TIME, due_at=due)
            async for _ in self._wait(worker, task, wait):
                yield
        if workflow_id == "listener":
            wait = NewWait(step_key="ear", kind=WaitKind.EVENT, topic=TOPIC)
            async for _ in self._wait(worker, task, wait):
                yield
        async for _ in self._step(worker, task, "last"):
            yield
        result = RunResult(result=json.dumps(payload.get("n", 0)).encode())
        attempts, project = self.server.runs.attempts, self.server.project
        await self._write(worker, lambda: attempts.complete(project, task.run_id, Attempt(worker_id=worker.id), result))

    async def _step(self, worker: ModelWorker, task: Task, key: str) -> AsyncIterator[None]:
        if await self._known(worker, task, key):
            return
        if (task.run_id, key) in self.truth.recorded:
            self.truth.violations.append(f"step {key} of {task.run_id} is recorded and was run again")
        yield
        # Whoever has lost the run meanwhile cannot know: what it was told was true. The wire has no fence to stop it by.
        self.truth.ran[task.run_id, key] += 1
        step = Step(step_key=key, outputs=b"1", completed_at=self.server.store_now())
        attempts, project = self.server.runs.attempts, self.server.project
        await self._write(worker, lambda: attempts.put_step(project, task.run_id, Attempt(), step))
        self.truth.recorded.add((task.run_id, key))
        yield

    async def _children(self, worker: ModelWorker, task: Task, count: int) -> AsyncIterator[None]:
        if await self._known(worker, task, "children"):
            return
        yield
        orders = [RunOrder(workflow_id="plain", payload=b'{"n": %d}' % number) for number in range(count)]
        submission = Submission(
            runs=orders, batch=count > 1, parent_id=task.run_id, step_key="children", wait=True, deployment_id="d"
        )
        server = self.server
        await self._write(worker, lambda: server.runs.runs.submit(server.caller, server.project, submission))
        raise Gone

    async def _wait(self, worker: ModelWorker, task: Task, wait: NewWait) -> AsyncIterator[None]:
        if await self._known(worker, task, wait.step_key):
            return
        yield
        attempts, project = self.server.runs.attempts, self.server.project
        await self._write(worker, lambda: attempts.wait(project, task.run_id, Attempt(), wait))
        raise Gone

    async def _known(self, worker: ModelWorker, task: Task, key: str) -> bool:
        try:
            await self._write(worker, lambda: self.server.runs.attempts.step(self.server.project, task.run_id, key))
        except NotFound:
            return False
        return True

    async def _fail(self, worker: ModelWorker, task: Task) -> None:
        attempts, project = self.server.runs.attempts, self.server.project
        await attempts.fail(project, task.run_id, Attempt(worker_id=worker.id), "not yet", retryable=True)

    async def _write(self, worker: ModelWorker, call: Callable[[], Any]) -> None:
        """Make a call. A silent worker's does not arrive; what is refused ends the attempt."""
        if worker.silent:
            raise Gone
        try:
            await call()
        except Conflict:
            raise Gone from None


async def iter_calls(nothing: Callable[[], None]) -> AsyncIterator[None]:
    """No calls at all."""
    nothing()
    return
    yield
