"""Runs as clients see them: submit, read, wait, cancel."""

from __future__ import annotations

from collections.abc import Iterable

from dormice.crash_points import CrashPoint, reached
from dormice.domain.errors import Conflict, Invalid, NotFound
from dormice.domain.run import CancelledBy, Run, Step, WaitKind
from dormice.engine.clock import Clock, new_id
from dormice.engine.feed import Feed
from dormice.engine.idempotency import InFlight, reused
from dormice.engine.orders import Caller, Idempotency
from dormice.engine.runs.board import RunBoard
from dormice.engine.runs.checks import uuid_of
from dormice.engine.runs.ledger import Ledger
from dormice.engine.runs.offers import Offers
from dormice.engine.runs.orders import Submission, in_project
from dormice.engine.runs.registry import Registry
from dormice.engine.tasks import Tasks
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed
from dormice.store.projects import Project
from dormice.store.workflows import Command, Moved, NewRun, ParentWait, Refused, RunInput, RunResult, RunStore

_NO_SUCH_RUN = "no such execution"


class Runs:
    """Raises NotFound, Invalid, Conflict, StoreUnavailable."""

    def __init__(
        self,
        *,
        store: RunStore,
        board: RunBoard,
        ledger: Ledger,
        registry: Registry,
        offers: Offers,
        feed: Feed,
        in_flight: InFlight,
        tasks: Tasks,
        clock: Clock,
    ) -> None:
        self._store = store
        self._board = board
        self._ledger = ledger
        self._registry = registry
        self._offers = offers
        self._feed = feed
        self._in_flight = in_flight
        self._tasks = tasks
        self._clock = clock

    async def submit(
        self, caller: Caller, project: Project, submission: Submission, idempotency: Idempotency | None = None
    ) -> list[Run]:
        """Record runs, all or none. The same idempotency key again returns what the first request made."""
        claim = await self._in_flight.claim(caller, in_project(idempotency, project))
        return await self._tasks.finish(self._submit(project, submission, claim))

    async def _submit(self, project: Project, submission: Submission, claim: IdempotencyClaim | None) -> list[Run]:
        try:
            news = await self.new_runs(project, submission)
            wait = None
            if submission.wait and submission.parent_id is not None and submission.step_key is not None:
                kind = WaitKind.BATCH if submission.batch else WaitKind.RUN
                wait = ParentWait(run_id=submission.parent_id, step_key=submission.step_key, kind=kind)
            made = await self._store.submit(news, wait, claim)
        except (NotFound, Invalid, Conflict):
            if (earlier := await self._in_flight.recall(claim)) is not None:
                return await self._made_before(project, earlier)
            raise
        finally:
            self._in_flight.settle(claim)
        match made:
            case Replayed(resource_id=ids):
                return await self._made_before(project, ids)
            case KeyReused():
                raise reused(made)
            case Refused(run=None):
                raise NotFound("no such parent execution")
            case Refused():
                raise Conflict("the parent execution has ended, or its end was asked for")
        reached(CrashPoint.RUN_COMMITTED)
        self.know_queues(news)
        if wait is not None:
            self._ledger.unwinds(wait.run_id, made.changed)
        self._ledger.apply(made.changed)
        if wait is not None:
            self._ledger.waits_for(wait.run_id, {wait.step_key: wait.kind})
        return list(made.runs)

    async def _made_before(self, project: Project, ids: str) -> list[Run]:
        return [await self.get(project, run_id) for run_id in ids.split(",")]

    def know_queues(self, news: Iterable[NewRun]) -> None:
        """Know the queues that runs have made."""
        for new in news:
            self._board.set_limit(new.queue, new=True)

    async def new_runs(self, project: Project, submission: Submission) -> list[NewRun]:
        """Return the runs to be recorded. Raises NotFound, Invalid."""
        parent = None
        if submission.parent_id is not None:
            parent = self._board.runs.get(submission.parent_id) or await self._store.get(
                project.id, submission.parent_id
            )
            if parent is None or parent.project_id != project.id:
                raise NotFound("no such parent execution")
        wanted = submission.deployment_id or (parent.deployment_id if parent is not None else None)
        deployment = self._registry.deployment(project, wanted)
        now = self._clock.now()
        session_id = submission.session_id or (parent.session_id if parent is not None else new_id(self._clock))
        batch_id = new_id(self._clock) if submission.batch else None
        offers = [self._registry.offer(project.id, deployment.id, order.workflow_id) for order in submission.runs]
        for number, (offer, order) in enumerate(zip(offers, submission.runs, strict=True)):
            name = f"workflows[{number}].payload" if submission.batch else "payload"
            await self._offers.check_payload(project.organization_id, offer, order.payload, name)
        return [
            NewRun(
                id=new_id(self._clock),
                project_id=project.id,
                workflow_id=order.workflow_id,
                payload=order.payload,
                deployment_id=deployment.id,
                queue_name=order.queue_name or offer.queue_name or order.workflow_id,
                queue_limit=order.queue_limit,
                concurrency_key=order.concurrency_key,
                priority=order.priority,
                parent_id=parent.id if parent is not None else None,
                root_id=(parent.root_id or parent.id) if parent is not None else None,
                root_workflow_id=(parent.root_workflow_id or parent.workflow_id) if parent is not None else None,
                step_key=submission.step_key if parent is not None else None,
                batch_id=batch_id,
                session_id=session_id,
                user_id=submission.user_id or (parent.user_id if parent is not None else None),
                max_retries=offer.retry_policy.max_retries,
                run_timeout_seconds=order.run_timeout_seconds or offer.run_timeout_seconds,
                initial_state=order.initial_state,
                channel_context=submission.channel_context,
                traceparent=submission.traceparent,
                now=now,
            )
            for offer, order in zip(offers, submission.runs, strict=True)
        ]

    async def get(self, project: Project, run_id: str, *, wait_ms: int = 0) -> Run:
        """Return a run of a project; with wait_ms, once it has ended or that time is over. Raises NotFound."""
        return await self.ended(await self.find(project, run_id), wait_ms)

    async def ended(self, run: Run, wait_ms: int) -> Run:
        """Return a run once it has ended; as it is when that time is over, or the server stops."""
        return await self._feed.ended(run, wait_ms, clock=self._clock, reread=self._reread)

    async def find(self, project: Project, run_id: str) -> Run:
        """Return a run as it is. Raises NotFound."""
        return await self._find(project.id, uuid_of(run_id, "path.execution_id"))

    async def _reread(self, run: Run) -> Run:
        return await self._find(run.project_id, run.id)

    async def _find(self, project_id: str, identity: str) -> Run:
        run = self._board.runs.get(identity) or await self._store.get(project_id, identity)
        if run is None or run.project_id != project_id:
            raise NotFound(_NO_SUCH_RUN)
        return run

    async def record(self, run: Run) -> tuple[RunInput, RunResult]:
        """Return what a run was given, and what came of it."""
        return await self._store.record(run)

    async def steps(self, run: Run) -> list[Step]:
        """Return what a run has done."""
        return await self._store.steps(run)

    async def cancel(self, project: Project, run_id: str) -> Run:
        """Ask for the end of a run and of all below it. Raises Conflict when it has ended."""
        run = await self.find(project, run_id)
        return await self._tasks.finish(self._cancel(run))

    async def _cancel(self, run: Run) -> Run:
        asked = await self._store.request_cancel(run.project_id, run.id, CancelledBy.MANUAL, now=self._clock.now())
        match asked:
            case Moved(run=current):
                reached(CrashPoint.RUN_CANCEL_COMMITTED)
                self._ledger.apply(asked.changed)
                return current
            case Refused(run=None):
                raise NotFound(_NO_SUCH_RUN)
            case _:
                raise Conflict("the execution has ended")

    async def commands(self, run: Run) -> list[Command]:
        """Return the commands on machines that are steps of a run, by their keys."""
        return await self._store.commands(run)
