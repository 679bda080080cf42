"""The port of the store for the workflow surface: projects, what workers offer, runs, events. The rules of interface.py hold here too.

A change of a run may change others: a child's end resumes its parent, a cancel goes down the tree. So what a method did is told as
`changed`, every run that is different now, as it is now.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from msgspec import Struct

from dormice.domain.execution import Execution, Micros
from dormice.domain.run import NULL, CancelledBy, Event, Json, Run, Step, WaitKind
from dormice.store.interface import IdempotencyClaim, KeyReused, NewExecution, Replayed, Store
from dormice.store.lists import RunListStore
from dormice.store.projects import ProjectStore, Queue
from dormice.store.sessions import SessionStore
from dormice.store.traces import TraceStore


class NewRun(Struct, frozen=True, kw_only=True):
    """What is known of a run when it is asked for."""

    id: str
    """A UUIDv7 of its moment: lists find runs of a time by it."""
    project_id: str
    workflow_id: str
    payload: Json
    deployment_id: str
    queue_name: str
    queue_limit: int | None = None
    """The limit of the queue if it does not exist yet."""
    concurrency_key: str | None = None
    priority: int = 0
    not_before: Micros = 0
    parent_id: str | None = None
    root_id: str | None = None
    root_workflow_id: str | None = None
    step_key: str | None = None
    batch_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    max_retries: int = 2
    run_timeout_seconds: int | None = None
    initial_state: Json | None = None
    channel_context: Json | None = None
    traceparent: str | None = None
    fault: str | None = None
    """Why it fails as it is made; None: it is queued."""
    now: Micros

    @property
    def queue(self) -> Queue:
        """Its queue, as it is made with the run if it does not exist yet."""
        return Queue(
            project_id=self.project_id,
            deployment_id=self.deployment_id,
            name=self.queue_name,
            concurrency_limit=self.queue_limit,
        )


class ParentWait(Struct, frozen=True, kw_only=True):
    """The run that waits for what is submitted."""

    run_id: str
    step_key: str
    kind: WaitKind


class Attempt(Struct, frozen=True, kw_only=True):
    """Who writes of a run: a foreign worker is known by its id only, our own by the fence of its claim too."""

    worker_id: str | None = None
    fence: int | None = None

    def holds(self, run: Run) -> bool:
        """Whether the run is, as far as it was told, this writer's."""
        return self.worker_id in (None, run.worker_id) and self.fence in (None, run.fence)


class Submitted(Struct, frozen=True, kw_only=True):
    """The runs in the order in which they were asked for; `made` is False when they were there already."""

    runs: Sequence[Run]
    made: bool
    changed: Sequence[Run]


class Moved(Struct, frozen=True, kw_only=True):
    """The guard held. `changed` is empty when all was as wanted before."""

    run: Run
    changed: Sequence[Run] = ()
    told: Told | None = None
    """What was published with it."""


class Refused(Struct, frozen=True, kw_only=True):
    """The guard did not hold. `run` is the record as it is, None when there is none."""

    run: Run | None = None
    changed: Sequence[Run] = ()
    """What came of it all the same: a worker that reports on a run whose end was asked for has ended it."""


class RunInput(Struct, frozen=True, kw_only=True):
    """The documents that a run was given."""

    payload: Json = NULL
    initial_state: Json | None = None
    channel_context: Json | None = None
    traceparent: str | None = None
    span_id: str | None = None


class RunResult(Struct, frozen=True, kw_only=True):
    """What came of a run."""

    result: Json | None = None
    output_schema_name: str | None = None
    final_state: Json | None = None


class NewWait(Struct, frozen=True, kw_only=True):
    """A wait for a moment or for an event."""

    step_key: str
    kind: WaitKind
    due_at: Micros | None = None
    topic: str | None = None
    event_type: str | None = None
    question: Json | None = None
    """What is asked, by an event `suspend_…` of the topic, when the wait begins."""


class Suspended(Struct, frozen=True, kw_only=True):
    """A run that waits for several things together, or goes on at once: they were all there."""

    run: Run
    changed: Sequence[Run]
    dues: Sequence[Due]
    """The waits that end at a moment."""
    told: Told | None = None
    """The questions that were asked with it."""


class Waited(Moved, frozen=True, kw_only=True):
    """It waits, or has been given at once what it waits for."""

    due_at: Micros | None = None
    """The moment at which the wait ends at the latest. One that was there already keeps the moment it had."""


class Due(Struct, frozen=True, kw_only=True):
    """A wait that ends at a moment, whatever happens."""

    run_id: str
    step_key: str
    due_at: Micros


class OpenWait(Struct, frozen=True, kw_only=True):
    """What a run waits for."""

    run_id: str
    step_key: str
    kind: WaitKind


class NewEvent(Struct, frozen=True, kw_only=True):
    """An event to be published."""

    id: str
    event_type: str | None
    data: Json
    run_id: str | None = None
    attempt_number: int | None = None
    for_run: str | None = None
    """The one run whose question it answers; None: every run that is suspended until an event of its type comes."""


class Publication(Struct, frozen=True, kw_only=True):
    """An event that is published with a change of a run."""

    topic: str
    event: NewEvent


class Told(Struct, frozen=True, kw_only=True):
    """Events that were published."""

    topics: Sequence[str]
    """One for each event."""
    ended: Sequence[tuple[str, str]]
    """The waits that were for them: run and step key."""


class Published(Struct, frozen=True, kw_only=True):
    """The events with their sequences, and the runs that they resumed."""

    events: Sequence[Event]
    changed: Sequence[Run]
    told: Told


class CommandBegun(Struct, frozen=True, kw_only=True):
    """A run waits for a command. `execution` is None when the step had one already."""

    run: Run
    execution: Execution | None
    changed: Sequence[Run]


class Command(Struct, frozen=True, kw_only=True):
    """A command on a machine that is a step of a run."""

    run_id: str
    step_key: str
    execution: Execution


class Question(Struct, frozen=True, kw_only=True):
    """What a run that is suspended at a step asks."""

    pending: bool
    """Whether it waits for an answer now."""
    asked: Event | None = None
    """The last `suspend_…` event of that step: of a run that waits, if one does."""
    answered: bool = False
    """Whether an answer to that has been published."""
    run_id: str | None = None
    """The run that is to be given the answer; None: every one that waits at that step, as none has said that it asks."""


class RunStore(Protocol):
    """Runs, their steps and waits."""

    async def submit(
        self, runs: Sequence[NewRun], wait: ParentWait | None, claim: IdempotencyClaim | None
    ) -> Submitted | Replayed | KeyReused | Refused:
        """Record runs of one project, all or none, and with `wait` that the parent waits for them.

        A parent that has runs under that step key already, and did not cancel them, gets those; one whose step is known by now is
        resumed at once. Refused: the parent has ended or its end was asked for. Replayed names the ids, joined by commas.
        """
        ...

    async def get(self, project_id: str, run_id: str) -> Run | None:
        """Return a run of the project."""
        ...

    async def find(self, run_id: str) -> Run | None:
        """Return a run, whatever its project: for who has been given its id, and for comparing projects."""
        ...

    async def rerun(
        self, source: Run, new: NewRun, from_step: str | None, claim: IdempotencyClaim | None
    ) -> Submitted | Replayed | KeyReused | Refused:
        """Record a run that begins with the steps of another one that were done before `from_step` (None: with none).

        The other one stays as it is. Refused: it has no such step.
        """
        ...

    async def open(self) -> list[Run]:
        """Every run of every project that has not ended, oldest first."""
        ...

    async def dues(self) -> list[Due]:
        """Every wait that has a moment to end at."""
        ...

    async def open_waits(self) -> list[OpenWait]:
        """Every wait of a run that waits."""
        ...

    async def input(self, run: Run) -> RunInput:
        """Return what it was given."""
        ...

    async def record(self, run: Run) -> tuple[RunInput, RunResult]:
        """Return what it was given and what came of it; that is all None before its end."""
        ...

    def claim(
        self, run_id: str, worker_id: str, *, now: Micros, accepted_at: Micros | None = None
    ) -> Awaitable[Moved | Refused]:
        """Give a queued run to a worker: fence + 1. With `accepted_at` (steady clock), the worker takes it at once: `running`."""
        ...

    async def accept(self, run_id: str, fence: int, *, now: Micros, accepted_at: Micros) -> Moved | Refused:
        """The worker took it: `running`. Refused when it has gone on since."""
        ...

    async def release(
        self, run_id: str, fence: int, *, now: Micros, not_before: Micros, crashed: bool, most_crashes: int
    ) -> Moved | Refused:
        """Put a run that a worker has back into its queue. A crash counts, and one more than `most_crashes` fails it."""
        ...

    def complete(
        self, run_id: str, attempt: Attempt, result: RunResult, publications: Sequence[Publication] = (), *, now: Micros
    ) -> Awaitable[Moved | Refused]:
        """End a run well, and publish. Repeated by the same worker: unchanged."""
        ...

    def fail(
        self,
        run_id: str,
        attempt: Attempt,
        error: str,
        *,
        retryable: bool,
        not_before: Micros,
        final_state: Json | None,
        now: Micros,
    ) -> Awaitable[Moved | Refused]:
        """End an attempt badly: there is another one, not before that moment, or the run fails."""
        ...

    async def request_cancel(self, project_id: str, run_id: str, by: CancelledBy, *, now: Micros) -> Moved | Refused:
        """Ask for the end of a run and of all below it. What no worker has is cancelled at once. Refused: it has ended."""
        ...

    async def cancelled(self, run_id: str, attempt: Attempt, by: CancelledBy | None, *, now: Micros) -> Moved | Refused:
        """What ran of it has ended. With `by`, also when nobody has asked for its end: all below it is asked to end then."""
        ...

    def put_step(
        self, project_id: str, run_id: str, attempt: Attempt, step: Step, publications: Sequence[Publication] = ()
    ) -> Awaitable[Moved | Refused]:
        """Record a step, and publish; one that publishes and is known already changes nothing.

        Refused when the run has ended or its end was asked for.
        """
        ...

    async def step(self, run: Run, step_key: str) -> Step | None:
        """Return one step."""
        ...

    async def steps(self, run: Run) -> list[Step]:
        """Return all steps, by key."""
        ...

    async def wait(
        self, run_id: str, attempt: Attempt, wait: NewWait, *, now: Micros, steady: Micros
    ) -> Waited | Refused:
        """Have a run wait. An event that came just before ends the wait at once; a wait that is there already stays as it is.

        `steady`: this moment by the clock that attempts are timed by; events are by the one that `now` is of.
        """
        ...

    async def suspend(
        self, run_id: str, attempt: Attempt, children: Sequence[NewRun], waits: Sequence[NewWait], *, now: Micros
    ) -> Suspended | Refused:
        """Have a run wait for all of this together: children, which are made unless their step has some already, moments, events.

        It goes on once the last of them has ended. An event is found if it came since the run was made. A question is asked if its wait
        is new.
        """
        ...

    async def expire(self, run_id: str, step_key: str, *, now: Micros) -> Moved | Refused:
        """The moment of a wait has come. Refused when it waits no more, or for a later moment."""
        ...

    async def begin_command(
        self, run_id: str, attempt: Attempt, step_key: str, new: NewExecution
    ) -> CommandBegun | Refused:
        """Record a command and that the run waits for it. A step has one command, however often it is begun."""
        ...

    async def end_command(self, execution_id: str, *, now: Micros) -> Moved | Refused:
        """Give a run the record of its command that has ended, and let it go on; one whose end was asked for ends."""
        ...

    async def open_commands(self) -> list[Command]:
        """Every command that its run was not told of: those that have ended meanwhile too."""
        ...

    async def commands(self, run: Run) -> list[Command]:
        """Return the commands of a run."""
        ...

    async def set_span(self, run: Run, span_id: str | None) -> None:
        """Remember the trace span of its last attempt."""
        ...


class EventStore(Protocol):
    """Events of a project's topics."""

    async def publish(self, project_id: str, topic: str, events: Sequence[NewEvent], *, now: Micros) -> Published:
        """Record events, in their order, and resume the runs of the project that wait for them."""
        ...

    async def page(
        self, project_id: str, topic: str, *, after: int, since: Micros | None, limit: int, newest_first: bool = False
    ) -> list[Event]:
        """Events of a topic that come after one in their order, and later than `since`: with a greater sequence than `after`, or
        newest first with a lesser one (0: from the newest on).
        """
        ...

    async def question(self, project_id: str, topic: str, step_key: str, run_id: str | None) -> Question:
        """Return what is asked at a step by the run, or by any run of the topic: of several that wait, what was asked last.

        It waits for an answer once its wait is there, and before that, when the event is there and the wait on its way.
        """
        ...

    async def answer(
        self, project_id: str, topic: str, step_key: str, run_id: str | None, event: NewEvent, *, now: Micros
    ) -> Published | Question:
        """Publish the answer, for the run that asked, if it is still waited for; otherwise return how things are."""
        ...

    async def questions(self, project_id: str, topic: str, *, limit: int) -> list[Event]:
        """The first `suspend_…` and `resume_…` events of a topic, in their order."""
        ...


class WorkflowStore(Protocol):
    """The part of the store that the workflow surface needs."""

    @property
    def projects(self) -> ProjectStore:
        """Projects and what belongs to them."""
        ...

    @property
    def runs(self) -> RunStore:
        """Runs, their steps and waits."""
        ...

    @property
    def events(self) -> EventStore:
        """Events."""
        ...

    @property
    def lists(self) -> RunListStore:
        """Lists of runs."""
        ...

    @property
    def traces(self) -> TraceStore:
        """Traces."""
        ...

    @property
    def sessions(self) -> SessionStore:
        """Memories and conversations."""
        ...


class WholeStore(Store, WorkflowStore, Protocol):
    """Both halves, in one file and with one writer."""
