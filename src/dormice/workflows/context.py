# ruff: noqa: ASYNC109 - a timeout is the run's own here, kept by the server
"""What a workflow function is given: by this it does all that must happen once, and waits without holding a worker."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, TypeVarTuple, cast, overload
from uuid import UUID, uuid5

import msgspec

from dormice.client.argv import as_argv
from dormice.workflows import documents, steps
from dormice.workflows.errors import ChildFailed, EventTimeout, LetGo, NonDeterministic, NonRetryable, StepFailed
from dormice.workflows.journal import Journal
from dormice.workflows.messages import Assignment, Child, Command, NewEvent, Step, StepDone, Told, Wait
from dormice.workflows.records import CommandResult
from dormice.workflows.steps import Retry

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from dormice.workflows.definition import Workflow
    from dormice.workflows.lifecycle import LifecycleEvents

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
P = TypeVar("P")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")
_Asking = TypeVar("_Asking", bound=Callable[..., Coroutine[Any, Any, Any]])

_RETRY = Retry()


class _Failure(msgspec.Struct):
    message: str = "it failed"


class _Event(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw(documents.NULL)


class Recorder(Protocol):
    """Records steps of one run."""

    async def record(self, step: StepDone) -> None:
        """Return once the step is recorded. Raises LetGo, CancelledError, NonRetryable."""
        ...

    def tell(self, report: Told) -> None:
        """Have something told of the run, now, and wait for nothing."""
        ...


def _asking(method: _Asking) -> _Asking:
    """Have what is asked for known before it is awaited: if it never is, it can be named."""

    @functools.wraps(method)
    def ask(self: Context, key: str, *arguments: Any, **options: Any) -> Coroutine[Any, Any, Any]:
        coroutine = method(self, key, *arguments, **options)
        self._journal.ask(method.__name__, key, coroutine)
        return coroutine

    return cast("_Asking", ask)


class Context:
    """One attempt of one run.

    A workflow function is run again from its start whenever its run goes on: after a wait, a failed attempt, the loss of a worker. Steps
    that are recorded then give what they gave before. So between its steps it must do the same each time: what differs (time, randomness,
    the world) belongs into steps. Each step has a key of its own, which is the same in each attempt.
    """

    def __init__(
        self,
        assignment: Assignment,
        journal: Journal,
        recorder: Recorder,
        threads: Executor,
        lifecycle: LifecycleEvents | None = None,
    ) -> None:
        self._assignment = assignment
        self._journal = journal
        self._recorder = recorder
        self._threads = threads
        self._lifecycle = lifecycle
        self._names: set[str] = set()
        self.run_id = assignment.run_id
        self.workflow_id = assignment.workflow_id
        self.parent_id = assignment.parent_id
        self.root_id = assignment.root_id
        self.root_workflow_id = assignment.root_workflow_id
        self.session_id = assignment.session_id
        self.user_id = assignment.user_id
        self.retry_count = assignment.retry_count
        """Attempts that failed before this one."""

    def __repr__(self) -> str:
        return f"<Context of run {self.run_id} of {self.workflow_id}>"

    @property
    def created_at(self) -> datetime:
        """When the run was asked for."""
        return datetime.fromisoformat(self._assignment.created_at)

    @property
    def initial_state(self) -> Any:
        """The state that the run was given, if any."""
        return msgspec.json.decode(self._assignment.initial_state)

    @overload
    async def step(
        self,
        key: str,
        function: Callable[[*Ts], Coroutine[Any, Any, T]],
        /,
        *arguments: *Ts,
        retry: Retry = ...,
        returns: Any = ...,
    ) -> T: ...
    @overload
    async def step(
        self,
        key: str,
        function: Callable[[*Ts], T],
        /,
        *arguments: *Ts,
        retry: Retry = ...,
        returns: Any = ...,
    ) -> T: ...
    @_asking  # type: ignore[misc] # mypy does not see that Any takes every tuple of arguments
    async def step(
        self, key: str, function: Callable[..., Any], /, *arguments: Any, retry: Retry = _RETRY, returns: Any = None
    ) -> Any:
        """Run a function, record what it returns, and return that; once it is recorded, only return it.

        The function is async, or plain and is run on a thread. What it returns is written as JSON and read back as what it is annotated
        with, or as `returns`. It is run at least once: if the worker is lost before the record is made, it is run again. When all attempts
        of `retry` have failed, that is recorded too, and StepFailed is raised. Raises NonDeterministic when the key was used before.
        """
        wanted = documents.return_type(function) if returns is None else returns
        recorded = self._journal.begin(key)
        if recorded is not None:
            _raise_failure(recorded)
            return documents.decode(recorded.outputs, wanted, f"the recorded result of step {key!r}")
        with self._journal.running():
            done = StepDone(run_id=self.run_id, fence=self._assignment.fence, step_key=key)
            if self._lifecycle is not None:
                self._recorder.tell(self._lifecycle.step_start(key, function, retry))
            try:
                result = await steps.run(function, arguments, retry, self._threads)
                done.outputs = documents.encode(result, f"the result of step {key!r}")
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
                done.error = {"message": message}
                await self._recorder.record(done)
                raise StepFailed(key, message) from error
            if self._lifecycle is not None:
                done.events = self._lifecycle.step_finish(key, done.outputs)
            await self._recorder.record(done)
        return documents.decode(done.outputs, wanted, f"the result of step {key!r}")

    @_asking
    async def sleep(self, key: str, seconds: float) -> None:
        """Wait for a time, without holding a worker. Raises NonRetryable when the time is none."""
        if not isinstance(seconds, int | float) or not seconds >= 0:
            raise NonRetryable(f"sleep {key!r}: seconds must be a number and not negative")
        recorded = self._journal.begin(key)
        if recorded is None:
            raise self._journal.wait_for(Wait(step_key=key, wait_type="time", delay_ms=round(seconds * 1000)))
        _raise_failure(recorded)

    @overload
    async def event(self, key: str, topic: str, *, timeout: float | None = ..., returns: type[T]) -> T: ...
    @overload
    async def event(self, key: str, topic: str, *, timeout: float | None = ...) -> Any: ...
    @_asking
    async def event(self, key: str, topic: str, *, timeout: float | None = None, returns: Any = Any) -> Any:
        """Wait for an event of a topic, without holding a worker, and return its data.

        An event that came since the run was made counts, unless the run was given it, or a later one of the topic, before. Raises
        EventTimeout when none comes within `timeout` seconds.
        """
        recorded = self._journal.begin(key)
        if recorded is None:
            delay_ms = None if timeout is None else round(timeout * 1000)
            raise self._journal.wait_for(Wait(step_key=key, wait_type="event", topic=topic, delay_ms=delay_ms))
        if recorded.failed:
            raise EventTimeout(key)
        data = documents.decode(recorded.outputs, _Event, f"event {key!r}").data
        return documents.decode(data, returns, f"the data of event {key!r}")

    @overload
    async def suspend(self, key: str, data: object = ..., *, timeout: float | None = ..., returns: type[T]) -> T: ...
    @overload
    async def suspend(self, key: str, data: object = ..., *, timeout: float | None = ...) -> Any: ...
    @_asking
    async def suspend(self, key: str, data: object = None, *, timeout: float | None = None, returns: Any = Any) -> Any:
        """Ask people something, wait for their answer without holding a worker, and return it.

        `data` is what they are asked. They answer on the server's page `/approve/{run_id}/{key}` or by
        `dormice runs resume`; the first answer counts. Under the id of the root run that page shows what was asked last at a step of this
        key. `data` may have a `_form`, which is what the page shows: a `title`, a `description`,
        and `fields` with a `key` and a `type` each. It is asked once, whatever dies meanwhile. Raises EventTimeout when no answer comes
        within `timeout` seconds.
        """
        recorded = self._journal.begin(key)
        if recorded is None:
            wait = Wait(step_key=key, wait_type="suspend", topic=self._assignment.topic)
            wait.question = documents.encode(data, f"the question of {key!r}")
            wait.delay_ms = None if timeout is None else round(timeout * 1000)
            raise self._journal.wait_for(wait)
        if recorded.failed:
            raise EventTimeout(key)
        answer = documents.decode(recorded.outputs, _Event, f"the answer to {key!r}").data
        return documents.decode(answer, returns, f"the answer to {key!r}")

    @_asking
    async def publish(self, key: str, topic: str | None, data: object = None, *, event_type: str | None = None) -> None:
        """Publish an event, once, whatever dies meanwhile: it is a step. Who waits for one of the topic goes on.

        `topic` None is that of the run's tree, `workflow/{root_workflow_id}/{root_id}`, which `dormice runs events` shows.
        """
        recorded = self._journal.begin(key)
        if recorded is not None:
            _raise_failure(recorded)
            return
        with self._journal.running():
            event = NewEvent(
                topic=topic, event_type=event_type, data=documents.encode(data, f"the data of event {key!r}")
            )
            await self._recorder.record(
                StepDone(run_id=self.run_id, fence=self._assignment.fence, step_key=key, events=[event])
            )

    @overload
    async def child(
        self, key: str, workflow: Workflow[None, R], /, *, concurrency_key: str | None = ..., priority: int = ...
    ) -> R: ...
    @overload
    async def child(
        self,
        key: str,
        workflow: Workflow[P, R],
        payload: P,
        /,
        *,
        concurrency_key: str | None = ...,
        priority: int = ...,
    ) -> R: ...
    @overload
    async def child(
        self, key: str, workflow: str, payload: Any = ..., /, *, concurrency_key: str | None = ..., priority: int = ...
    ) -> Any: ...
    @_asking
    async def child(
        self,
        key: str,
        workflow: Workflow[Any, Any] | str,
        payload: Any = None,
        /,
        *,
        concurrency_key: str | None = None,
        priority: int = 0,
    ) -> Any:
        """Run another workflow below this one, wait for it without holding a worker, and return its result. Raises ChildFailed."""
        recorded = self._journal.begin(key)
        if recorded is None:
            child = Child(
                step_key=key,
                workflow_id=workflow if isinstance(workflow, str) else workflow.id,
                payload=documents.encode(payload, f"the payload of child {key!r}"),
                concurrency_key=concurrency_key,
                priority=priority,
            )
            if not isinstance(workflow, str):
                _describe(child, workflow)
            raise self._journal.wait_for(child)
        if recorded.failed:
            raise ChildFailed(key, _message(recorded), recorded.source_run_id)
        wanted = Any if isinstance(workflow, str) else workflow.result_type
        return documents.decode(recorded.outputs, wanted, f"the result of child {key!r}")

    @_asking
    async def exec(
        self,
        key: str,
        machine_id: str,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout: float | None = None,
    ) -> CommandResult:
        """Run a command on a machine, once, and wait for its end without holding a worker.

        It is begun once for as long as the run lives, whatever dies meanwhile; cancelling the run ends it. That it ended badly is no
        error: look at the record. While the machine takes no more, the run is put off for some seconds. Raises StepFailed when it
        cannot be begun, such as on a machine that is failed, and TypeError when argv is one string.

        Args:
            key: The step's key.
            machine_id: The machine; a sleeping one is woken.
            argv: The program and its arguments; no shell is involved.
            cwd: Working directory, `/root` by default.
            env: Variables added to the machine's.
            stdin: Text piped to the process.
            timeout: Seconds of running after which the whole tree of processes is killed.

        """
        wanted = {
            "command": as_argv(argv),
            "cwd": cwd,
            "env": None if env is None else dict(env),
            "stdin": stdin,
            "timeout_ms": None if timeout is None else round(timeout * 1000),
        }
        recorded = self._journal.begin(key)
        if recorded is None:
            execution = {name: value for name, value in wanted.items() if value is not None}
            raise self._journal.wait_for(Command(step_key=key, machine_id=machine_id, execution=execution))
        _raise_failure(recorded)
        result: CommandResult = documents.decode(recorded.outputs, CommandResult, f"the record of command {key!r}")
        return result

    @overload
    async def gather(self, first: Awaitable[T1], second: Awaitable[T2], /) -> tuple[T1, T2]: ...
    @overload
    async def gather(
        self, first: Awaitable[T1], second: Awaitable[T2], third: Awaitable[T3], /
    ) -> tuple[T1, T2, T3]: ...
    @overload
    async def gather(
        self, first: Awaitable[T1], second: Awaitable[T2], third: Awaitable[T3], fourth: Awaitable[T4], /
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def gather(self, *commands: Awaitable[T]) -> tuple[T, ...]: ...
    async def gather(self, *commands: Awaitable[Any]) -> tuple[Any, ...]:
        """Do several things at once: steps run side by side, and for the rest the run waits once, until all of it is there.

        When some have failed, the error of the first of them is raised, after all have ended.
        """
        results = await asyncio.gather(*commands, return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if isinstance(failure, LetGo | asyncio.CancelledError):
                raise failure
        if failures:
            raise failures[0]
        return tuple(results)

    @_asking
    async def now(self, key: str) -> datetime:
        """Return the present moment, in UTC; a replay gets the same. It is a step."""
        return await self.step(key, _now)

    def uuid(self, key: str) -> UUID:
        """Return a UUID that is the run's and the key's own; nothing has to be recorded for it."""
        return uuid5(UUID(self.run_id), self._name("uuid", key))

    def random(self, key: str) -> random.Random:
        """Return random numbers that are the run's and the key's own; nothing has to be recorded for them."""
        return random.Random(f"{self.run_id} {self._name('random', key)}")  # noqa: S311 - to be repeated, not to be secret

    def _name(self, kind: str, key: str) -> str:
        name = f"{kind} {key}"
        if name in self._names:
            raise NonDeterministic(f"the key {key!r} is used twice for {kind} in one run: it would give the same again")
        self._names.add(name)
        return name


async def _now() -> datetime:
    return datetime.now(UTC)


def _describe(child: Child, workflow: Workflow[Any, Any]) -> None:
    if workflow.queue is not None:
        child.queue_name = workflow.queue.name
        child.queue_concurrency_limit = workflow.queue.limit
    if workflow.timeout is not None:
        child.run_timeout_seconds = max(1, round(workflow.timeout))


def _raise_failure(recorded: Step) -> None:
    if recorded.failed:
        raise StepFailed(recorded.step_key, _message(recorded))


def _message(recorded: Step) -> str:
    try:
        return msgspec.json.decode(recorded.error, type=_Failure).message
    except msgspec.MsgspecError:
        return bytes(recorded.error).decode(errors="replace")
