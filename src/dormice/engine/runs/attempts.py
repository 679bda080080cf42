"""What workers report of the runs that they have: steps, waits, ends."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from dormice.crash_points import CrashPoint, reached
from dormice.domain.errors import Conflict, Forbidden, Invalid, NotFound
from dormice.domain.run import HELD, CancelledBy, Json, Run, RunState, Step
from dormice.engine.clock import Clock
from dormice.engine.orders import Caller, ExecutionOrder
from dormice.engine.runs.commands import Commands
from dormice.engine.runs.dispatcher import RunDispatcher
from dormice.engine.runs.ledger import Ledger
from dormice.engine.runs.offers import Offer, Offers
from dormice.engine.runs.registry import Registry
from dormice.engine.runs.runs import Runs
from dormice.engine.runs.waits import Waits
from dormice.engine.tasks import Tasks
from dormice.store.projects import Project
from dormice.store.workflows import Attempt, Moved, NewWait, Publication, Refused, RunResult, RunStore

_STOPPING_US = 2_000_000
_EARLY_US = 1_000_000
"""A worker's own clock may say a little sooner than ours that a run has run too long."""


class Attempts:
    """Writes of workers. Raises NotFound, Conflict, Invalid, StoreUnavailable."""

    def __init__(
        self,
        *,
        store: RunStore,
        ledger: Ledger,
        dispatcher: RunDispatcher,
        registry: Registry,
        offers: Offers,
        runs: Runs,
        waits: Waits,
        commands: Commands,
        tasks: Tasks,
        clock: Clock,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._registry = registry
        self._offers = offers
        self._runs = runs
        self._waits = waits
        self._commands = commands
        self._tasks = tasks
        self._clock = clock

    async def put_step(self, project: Project, run_id: str, attempt: Attempt, step: Step) -> None:
        """Record a step. Raises Conflict when the run has ended or its end was asked for."""
        run = await self._heard(project, run_id, attempt)
        put = await self._store.put_step(project.id, run.id, attempt, step)
        if isinstance(put, Refused):
            raise _conflict(put.run)
        reached(CrashPoint.STEP_COMMITTED)

    async def step(self, project: Project, run_id: str, step_key: str) -> Step:
        """Return a step. Raises NotFound."""
        step = await self._store.step(await self._heard(project, run_id, Attempt()), step_key)
        if step is None:
            raise NotFound("no such step: it has not been run yet")
        return step

    async def steps(self, project: Project, run_id: str) -> list[Step]:
        """Return all steps, by key."""
        return await self._store.steps(await self._heard(project, run_id, Attempt()))

    async def wait(self, project: Project, run_id: str, attempt: Attempt, wait: NewWait) -> None:
        """Have a run wait. Raises Conflict."""
        run = await self._heard(project, run_id, attempt)
        await self._tasks.finish(self._waits.begin(run, attempt, wait))

    async def begin_command(
        self,
        caller: Caller,
        project: Project,
        run_id: str,
        attempt: Attempt,
        step_key: str,
        machine_id: str,
        order: ExecutionOrder,
    ) -> None:
        """Run a command on a machine of the caller's organization as a step; the run waits for its end.

        Raises Forbidden for a key of one project: machines are the organization's. Raises Conflict unless the run is the worker's.
        """
        if caller.project_id is not None:
            raise Forbidden(
                "the key may use one project only, and machines are the organization's: "
                "a worker whose workflows run commands needs a key of the organization (dormice keys create)"
            )
        run = await self._heard(project, run_id, attempt)
        await self._tasks.finish(self._commands.begin(caller, run, attempt, step_key, machine_id, order))

    async def complete(self, project: Project, run_id: str, attempt: Attempt, result: RunResult) -> None:
        """End a run. Raises Conflict when another worker has it, or its end was asked for."""
        run = await self._heard(project, run_id, attempt)
        await self._tasks.finish(self._complete(run, attempt, result))

    async def _complete(self, run: Run, attempt: Attempt, result: RunResult) -> None:
        self._settle(await self.end(run, attempt, result))

    def end(
        self, run: Run, attempt: Attempt, result: RunResult, publications: Sequence[Publication] = ()
    ) -> Awaitable[Moved | Refused]:
        """Record that a run was completed, and publish. It has failed for good if its result does not fit the workflow's output_schema."""
        if self._offers.takes_at_once(self._offer(run), result.result):
            return self._store.complete(run.id, attempt, result, publications, now=self._clock.now())
        return self._end(run, attempt, result, publications)

    async def _end(
        self, run: Run, attempt: Attempt, result: RunResult, publications: Sequence[Publication]
    ) -> Moved | Refused:
        organization_id = self._registry.organization(run.project_id)
        fault = await self._offers.fault_of_result(organization_id, self._offer(run), result.result)
        now = self._clock.now()
        if fault is None:
            return await self._store.complete(run.id, attempt, result, publications, now=now)
        return await self._store.fail(
            run.id, attempt, fault, retryable=False, not_before=0, final_state=result.final_state, now=now
        )

    async def fail(
        self,
        project: Project,
        run_id: str,
        attempt: Attempt,
        error: str,
        *,
        retryable: bool,
        final_state: Json | None = None,
    ) -> None:
        """End an attempt badly. Raises Conflict when another worker has it, or its end was asked for."""
        run = await self._heard(project, run_id, attempt)
        await self._tasks.finish(self._fail(run, attempt, error, retryable=retryable, final_state=final_state))

    async def _fail(self, run: Run, attempt: Attempt, error: str, *, retryable: bool, final_state: Json | None) -> None:
        failed = await self._store.fail(
            run.id,
            attempt,
            error,
            retryable=retryable,
            not_before=self._clock.steady() + self._offer(run).retry_policy.pause(run.retry_count),
            final_state=final_state,
            now=self._clock.now(),
        )
        self._settle(failed)

    async def ended(self, project: Project, run_id: str, attempt: Attempt) -> None:
        """A worker says that what it ran was cancelled: because we asked, because it ran too long, or because the worker stops.

        In the last case the run goes back into its queue. Raises Conflict when another worker has it, Invalid when nobody has.
        """
        run = await self._runs.find(project, run_id)
        await self._tasks.finish(self._ended(run, attempt))

    async def _ended(self, run: Run, attempt: Attempt) -> None:
        by = CancelledBy.TIMEOUT if self._ran_too_long(run) else None
        done = await self._store.cancelled(run.id, attempt, by, now=self._clock.now())
        self._ledger.apply(done.changed)
        if isinstance(done, Moved):
            reached(CrashPoint.RUN_CANCELLED)
            return
        current = done.run
        if current is None or not attempt.holds(current):
            raise _conflict(current)
        if current.state not in HELD:
            raise Invalid(
                f"the execution is {current.state.value}: nobody has asked for its end",
                location="path.execution_id",
                status=400,
            )
        self._dispatcher.rest(
            current.worker_id, _STOPPING_US
        )  # most likely it stops, and would take this run and not run it
        await self._dispatcher.release(current, crashed=True)

    def _ran_too_long(self, run: Run) -> bool:
        if run.run_timeout_seconds is None or run.running_since is None:
            return False
        return self._clock.steady() + _EARLY_US >= run.running_since + run.run_timeout_seconds * 1_000_000

    async def unwound(self, project: Project, run_id: str, span_id: str | None) -> None:
        """A worker has let go of a run that waits; it tells the trace span of the attempt."""
        run = await self._runs.find(project, run_id)
        if span_id is not None:
            await self._store.set_span(run, span_id)
        self._ledger.unwound(run.id)

    async def _heard(self, project: Project, run_id: str, attempt: Attempt) -> Run:
        run = await self._runs.find(project, run_id)
        if run.state is RunState.CLAIMED and attempt.holds(run):
            await self._dispatcher.heard_of(run)
        return run

    def _offer(self, run: Run) -> Offer:
        return self._registry.offer(run.project_id, run.deployment_id, run.workflow_id)

    def _settle(self, done: Moved | Refused) -> None:
        self._ledger.apply(done.changed)
        if isinstance(done, Refused):
            raise _conflict(done.run)
        reached(CrashPoint.RUN_ENDED if done.run.terminal else CrashPoint.RUN_RETRIED)
        if len(done.changed) > 1:
            reached(CrashPoint.CHILD_RESUMED)


def _conflict(run: Run | None) -> Exception:
    if run is None:
        return NotFound("no such execution")
    if run.closed:
        return Conflict(f"the execution is {run.state.value}: what is reported of it does not count any more")
    return Conflict("another worker has the execution: what this one reports does not count")
