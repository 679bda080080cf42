"""Takes reports of workers that fetch their work: a batch at a time, so that its writes share a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from uuid import uuid4

from msgspec import UNSET

from dormice.crash_points import CrashPoint, reached
from dormice.domain import documents
from dormice.domain.errors import Conflict, Invalid, NotFound
from dormice.domain.limits import Limits
from dormice.domain.run import Run, RunState, Step, WaitKind
from dormice.engine.clock import Clock
from dormice.engine.runs import reports
from dormice.engine.runs.attempts import Attempts
from dormice.engine.runs.board import RunBoard
from dormice.engine.runs.checks import check_delay, check_order, check_step_key, check_topic
from dormice.engine.runs.dispatcher import RunDispatcher
from dormice.engine.runs.events import EventOrder, Events
from dormice.engine.runs.ledger import Ledger
from dormice.engine.runs.orders import RunOrder, Submission
from dormice.engine.runs.pull import Presence
from dormice.engine.runs.reports import CANCELLED, OK, STALE, Answer, Report, Verdict
from dormice.engine.runs.runs import Runs
from dormice.engine.runs.waits import Waits
from dormice.engine.runs.workers import Workers
from dormice.engine.tasks import Tasks
from dormice.store.projects import Project
from dormice.store.workflows import Attempt, Moved, NewEvent, NewRun, NewWait, Publication, Refused, RunResult, RunStore

_KINDS = {kind.value: kind for kind in (WaitKind.TIME, WaitKind.EVENT, WaitKind.SUSPEND)}
_Written = reports.StepReport | reports.CompleteReport


class Batches:
    """Every write is guarded by the worker and the fence of its claim. Raises Invalid, StoreUnavailable."""

    def __init__(
        self,
        *,
        store: RunStore,
        board: RunBoard,
        ledger: Ledger,
        dispatcher: RunDispatcher,
        attempts: Attempts,
        runs: Runs,
        waits: Waits,
        events: Events,
        workers: Workers,
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._store = store
        self._board = board
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._attempts = attempts
        self._runs = runs
        self._waits = waits
        self._events = events
        self._workers = workers
        self._tasks = tasks
        self._clock = clock
        self._limits = limits

    async def take(
        self, project: Project, worker_id: str, items: Sequence[Report], presence: Presence
    ) -> tuple[bool, Sequence[Answer]]:
        """Return whether the worker is known, and what became of each report, in their order."""
        live = self._workers.find(project, worker_id)
        if live is not None:
            live.heard_at = self._clock.steady()
            live.online = live.online and presence is Presence.WORKING  # before anything of it is put back
        answers = await self._tasks.finish(self._take(project, worker_id, items)) if items else ()
        if live is not None and presence is Presence.LEAVING:
            await self._tasks.finish(self._workers.lose(live, "it has left"))
        return live is not None, answers

    async def _take(self, project: Project, worker_id: str, items: Sequence[Report]) -> Sequence[Answer]:
        written = [item for item in items if isinstance(item, _Written)]
        if len(written) == len(items):
            return await self._write(project, worker_id, written)
        return await asyncio.gather(*(self._judged(project, worker_id, item) for item in items))

    async def _write(self, project: Project, worker_id: str, items: Sequence[_Written]) -> Sequence[Answer]:
        """Take reports that are one write each. All are asked for at once: a task for each would cost as much as the write."""
        answers: dict[int, Answer] = {}
        begun: list[tuple[int, Attempt]] = []
        writes: list[Awaitable[Moved | Refused]] = []
        for index, item in enumerate(items):
            attempt = Attempt(worker_id=worker_id, fence=item.fence)
            run = self._held(project, attempt, item)
            if run is None:
                answers[index] = STALE
                continue
            try:
                writes.append(self._begin(run, attempt, item))
                begun.append((index, attempt))
            except Invalid as error:
                answers[index] = Answer(status=Verdict.ERROR, message=error.message)
        failures: list[BaseException] = []
        for (index, attempt), done in zip(begun, await asyncio.gather(*writes, return_exceptions=True), strict=True):
            if isinstance(done, BaseException):
                failures.append(done)
            else:
                answers[index] = self._written(project, attempt, items[index], done)
        if failures:
            raise failures[0]  # the worker tells all of it again
        return [answers[index] for index in range(len(items))]

    def _held(self, project: Project, attempt: Attempt, item: Report) -> Run | None:
        """The run that is reported, if that worker has it."""
        run = self._board.runs.get(item.run_id)
        return run if run is not None and run.project_id == project.id and attempt.holds(run) else None

    async def _judged(self, project: Project, worker_id: str, item: Report) -> Answer:
        attempt = Attempt(worker_id=worker_id, fence=item.fence)
        run = self._held(project, attempt, item)
        if run is None:
            return STALE
        try:
            match item:
                case reports.StepReport() | reports.CompleteReport():
                    [answer] = await self._write(project, worker_id, [item])
                    return answer
                case reports.PublishReport():
                    await self._publish(project, run, item)
                case reports.SuspendReport():
                    return await self._suspend(project, run, attempt, item)
                case reports.FailReport():
                    final = documents.json(item.final_state)
                    await self._attempts.fail(
                        project, run.id, attempt, item.error, retryable=item.retryable, final_state=final
                    )
                case reports.EndedReport():
                    await self._attempts.ended(project, run.id, attempt)
                case reports.AbandonedReport():
                    check_delay(item.pause_ms, "pause_ms")
                    await self._dispatcher.release(run, crashed=False, pause_ms=item.pause_ms)
        except (Conflict, NotFound):
            return STALE
        except Invalid as error:
            return Answer(status=Verdict.ERROR, message=error.message)
        return OK

    async def _publish(self, project: Project, run: Run, item: reports.PublishReport) -> None:
        one = self._publication(run, item.event)
        event = EventOrder(event_type=one.event.event_type, data=one.event.data, run_id=run.id)
        await self._events.record(project, one.topic, [event])

    def _begin(self, run: Run, attempt: Attempt, item: _Written) -> Awaitable[Moved | Refused]:
        """Ask for the write. Raises Invalid."""
        publications = self._publications(run, item.events)
        if isinstance(item, reports.CompleteReport):
            result = RunResult(result=bytes(item.result), final_state=documents.json(item.final_state))
            return self._attempts.end(run, attempt, result, publications)
        check_step_key(item.step_key, self._limits)
        error = documents.json(item.error)
        step = Step(
            step_key=item.step_key,
            outputs=bytes(item.outputs),
            error=error,
            success=error is None,
            completed_at=self._clock.now(),
        )
        return self._store.put_step(run.project_id, run.id, attempt, step, publications)

    def _written(self, project: Project, attempt: Attempt, item: _Written, done: Moved | Refused) -> Answer:
        if isinstance(item, reports.CompleteReport):
            self._events.published(project, done.changed, done.told if isinstance(done, Moved) else None)
        elif isinstance(done, Moved):
            reached(CrashPoint.STEP_COMMITTED)
            if done.told is not None:
                self._events.published(project, done.changed, done.told)
        return OK if isinstance(done, Moved) else _refused(done, attempt)

    async def _suspend(self, project: Project, run: Run, attempt: Attempt, item: reports.SuspendReport) -> Answer:
        waits = [self._wait(order) for order in item.waits]
        if len(item.children) > self._limits.batch_runs:
            raise Invalid(f"children must have at most {self._limits.batch_runs} entries (batch_runs)")
        children = [child for order in item.children for child in await self._children(project, run, order)]
        if not (waits or children):
            raise Invalid("a run must wait for something: children and waits are empty")
        done = await self._store.suspend(run.id, attempt, children, waits, now=self._clock.now())
        if isinstance(done, Refused):
            return _refused(done, attempt)
        reached(CrashPoint.WAIT_COMMITTED)
        self._runs.know_queues(children)
        self._events.published(project, done.changed, done.told)
        kinds = {child.step_key: WaitKind.RUN for child in item.children}
        self._ledger.waits_for(run.id, kinds | {wait.step_key: wait.kind for wait in waits})
        for due in done.dues:
            self._waits.expect(due)
        return OK

    async def _children(self, project: Project, run: Run, order: reports.ChildOrder) -> Sequence[NewRun]:
        check_step_key(order.step_key, self._limits)
        child = RunOrder(
            workflow_id=order.workflow_id,
            payload=bytes(order.payload),
            queue_name=order.queue_name,
            queue_limit=order.queue_concurrency_limit,
            concurrency_key=order.concurrency_key,
            priority=order.priority,
            initial_state=documents.json(order.initial_state),
            run_timeout_seconds=order.run_timeout_seconds,
        )
        check_order(child)
        submission = Submission(runs=[child], parent_id=run.id, step_key=order.step_key)
        return await self._runs.new_runs(project, submission)

    def _wait(self, order: reports.WaitOrder) -> NewWait:
        check_step_key(order.step_key, self._limits)
        kind = _KINDS.get(order.wait_type)
        if kind is None:
            raise Invalid("wait_type must be time, event or suspend")
        if (kind is WaitKind.TIME) != (order.topic is None):
            raise Invalid("topic is required for an event, and for nothing else")
        if order.topic is not None:
            check_topic(order.topic, self._limits, "body.topic")
        question = None if order.question is UNSET else bytes(order.question)
        if question is not None and kind is not WaitKind.SUSPEND:
            raise Invalid("question is for wait_type suspend only")
        if order.delay_ms is None and kind is WaitKind.TIME:
            raise Invalid("delay_ms is required for a wait for time")
        if order.delay_ms is not None:
            check_delay(order.delay_ms, "delay_ms")
        return NewWait(
            step_key=order.step_key,
            kind=kind,
            due_at=None if order.delay_ms is None else self._clock.now() + order.delay_ms * 1000,
            topic=order.topic,
            event_type=f"resume_{order.step_key}" if kind is WaitKind.SUSPEND else None,
            question=question,
        )

    def _publications(self, run: Run, entries: Sequence[reports.EventReport]) -> Sequence[Publication]:
        if not entries:
            return ()
        if len(entries) > self._limits.events_per_request:
            raise Invalid(f"events must have at most {self._limits.events_per_request} entries (events_per_request)")
        return [self._publication(run, entry) for entry in entries]

    def _publication(self, run: Run, entry: reports.EventReport) -> Publication:
        topic = run.topic if entry.topic is None else entry.topic
        check_topic(topic, self._limits, "body.topic")
        event = NewEvent(id=str(uuid4()), event_type=entry.event_type, data=bytes(entry.data), run_id=run.id)
        return Publication(topic=topic, event=event)


def _refused(refused: Refused, attempt: Attempt) -> Answer:
    run = refused.run
    asked = run is not None and run.state is RunState.PENDING_CANCEL and attempt.holds(run)
    return CANCELLED if asked else STALE
