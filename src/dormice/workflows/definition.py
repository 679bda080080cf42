"""What a workflow is: a typed async function with an id, a queue and its bounds."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from dormice.workflows import documents
from dormice.workflows.context import Context
from dormice.workflows.starts import Schedule, Trigger
from dormice.workflows.steps import Retry

P = TypeVar("P")
R = TypeVar("R")


_MOST_ATTEMPTS = 1_001
_GREATEST_FACTOR = 100
_LONGEST_PAUSE = 86_400


@dataclass(frozen=True, slots=True)
class Queue:
    """Where runs of one or more workflows wait for a worker."""

    name: str
    limit: int | None = None
    """How many of them may run at once, over all workers of a deployment and for each concurrency key; None: no limit, or as another
    workflow of the worker says. Each deployment has queues of its own, so runs of an old and of a new one are counted apart."""


class Workflow(Generic[P, R]):
    """A workflow function that takes a payload of type P and returns R. Calling it runs the function itself."""

    def __init__(
        self,
        function: Callable[..., Awaitable[R]],
        *,
        id: str | None = None,  # noqa: A002 - what it is
        queue: Queue | str | None = None,
        timeout: float | None = None,
        schedule: Schedule | str | None = None,
        trigger: Trigger | str | None = None,
        retry: Retry | None = None,
        events: bool = False,
    ) -> None:
        if not inspect.iscoroutinefunction(function):
            raise TypeError("a workflow is an async function: async def f(ctx: Context, payload: P) -> R")
        positional = [
            parameter
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        if not 1 <= len(positional) <= 2:
            raise TypeError("a workflow takes a Context and at most one payload: async def f(ctx: Context, payload: P)")
        if timeout is not None and timeout < 1:
            raise ValueError("timeout must be at least 1 second")
        if retry is not None:
            _check(retry)
        self.function = function
        self.id = id or function.__name__
        self.queue = Queue(queue) if isinstance(queue, str) else queue
        self.timeout = timeout
        """Seconds that a run may be with workers in one attempt; whole seconds are counted."""
        self.schedule = Schedule(schedule) if isinstance(schedule, str) else schedule
        self.trigger = Trigger(trigger) if isinstance(trigger, str) else trigger
        self.retry = retry
        """How failed attempts are taken again; None: as the server does."""
        self.events = events
        """Whether its runs tell of their life by events."""
        self.takes_payload = len(positional) == 2
        hints = documents.hints(function)
        self.payload_type: Any = hints.get(positional[1].name, Any) if self.takes_payload else None
        self.result_type: Any = hints.get("return", Any)
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__module__ = function.__module__

    def __call__(self, ctx: Context, *payload: P) -> Awaitable[R]:
        """Run the function itself, as tests of it may."""
        return self.function(ctx, *payload)

    def __repr__(self) -> str:
        return f"<Workflow {self.id}>"


def _check(retry: Retry) -> None:
    """Raise TypeError or ValueError for what the server would not keep."""
    if not isinstance(retry, Retry):
        raise TypeError(f"retry must be a Retry, such as Retry(attempts=5), not {retry!r}")
    if retry.attempts > _MOST_ATTEMPTS:
        raise ValueError(f"retry.attempts of a workflow must be at most {_MOST_ATTEMPTS}, not {retry.attempts}")
    if retry.factor > _GREATEST_FACTOR:
        raise ValueError(f"retry.factor of a workflow must be at most {_GREATEST_FACTOR}, not {retry.factor}")
    if retry.longest_pause > _LONGEST_PAUSE:
        raise ValueError(
            f"retry.longest_pause of a workflow must be at most {_LONGEST_PAUSE} s, a day, not {retry.longest_pause}"
        )


class _Decorator:
    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    @overload
    def __call__(self, function: Callable[[Context], Awaitable[R]]) -> Workflow[None, R]: ...
    @overload
    def __call__(self, function: Callable[[Context, P], Awaitable[R]]) -> Workflow[P, R]: ...
    def __call__(self, function: Callable[..., Awaitable[Any]]) -> Workflow[Any, Any]:
        return Workflow(function, **self._options)


@overload
def workflow(function: Callable[[Context], Awaitable[R]], /) -> Workflow[None, R]: ...
@overload
def workflow(function: Callable[[Context, P], Awaitable[R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    id: str | None = None,
    queue: Queue | str | None = None,
    timeout: float | None = None,
    schedule: Schedule | str | None = None,
    trigger: Trigger | str | None = None,
    retry: Retry | None = None,
    events: bool = False,
) -> _Decorator: ...
def workflow(
    function: Callable[..., Awaitable[Any]] | None = None, /, **options: Any
) -> Workflow[Any, Any] | _Decorator:
    """Make an async function a workflow: `@workflow`, or `@workflow(queue=Queue("mail", 4))`.

    `id` is the function's name unless it is given, and what runs are started by. `queue` is the workflow's own, without a
    limit, unless it is given. `timeout` bounds each attempt, in seconds, of runs that name none, whoever starts them. With a `schedule` (or its cron expression) or a `trigger` (or its
    topic), a worker has the server start runs by itself. `retry` says how attempts that fail are taken again; without it, there are 3, with
    pauses from 0.5 s on. With `events`, runs publish what they do on their topic, as `dormice runs events` shows it.
    """
    decorator = _Decorator(options)
    return decorator if function is None else Workflow(function, **options)
