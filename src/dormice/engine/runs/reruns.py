"""Running again what has run: a new run, which may begin with what an earlier one has done."""

from __future__ import annotations

from msgspec import Struct

from dormice.domain.errors import Conflict, Invalid, NotFound
from dormice.domain.run import Run
from dormice.engine.clock import Clock, new_id
from dormice.engine.idempotency import InFlight, reused
from dormice.engine.orders import Caller, Idempotency
from dormice.engine.runs.ledger import Ledger
from dormice.engine.runs.offers import Offers
from dormice.engine.runs.orders import in_project
from dormice.engine.runs.registry import Registry
from dormice.engine.runs.runs import Runs
from dormice.engine.tasks import Tasks
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed
from dormice.store.projects import Project
from dormice.store.workflows import NewRun, Refused, RunStore


class RerunOrder(Struct, frozen=True, kw_only=True):
    """How a run is to be run again."""

    from_step: str | None = None
    """The step with which the new run begins to do anything: what was done before it is taken over. None: the first."""
    deployment_id: str | None = None
    """None: the earlier run's."""


class Reruns:
    """Raises NotFound, Invalid, Conflict, StoreUnavailable."""

    def __init__(
        self,
        *,
        store: RunStore,
        runs: Runs,
        ledger: Ledger,
        registry: Registry,
        offers: Offers,
        in_flight: InFlight,
        tasks: Tasks,
        clock: Clock,
    ) -> None:
        self._store = store
        self._runs = runs
        self._ledger = ledger
        self._registry = registry
        self._offers = offers
        self._in_flight = in_flight
        self._tasks = tasks
        self._clock = clock

    async def rerun(
        self, caller: Caller, project: Project, run_id: str, order: RerunOrder, idempotency: Idempotency | None
    ) -> Run:
        """Make a new run, with no parent, of what a run was given. That run stays as it is, whatever its state."""
        source = await self._runs.find(project, run_id)
        claim = await self._in_flight.claim(caller, in_project(idempotency, project))
        return await self._tasks.finish(self._rerun(project, source, order, claim))

    async def _rerun(self, project: Project, source: Run, order: RerunOrder, claim: IdempotencyClaim | None) -> Run:
        try:
            new = await self._new(project, source, order)
            made = await self._store.rerun(source, new, order.from_step, claim)
        except (NotFound, Invalid, Conflict):
            if (earlier := await self._in_flight.recall(claim)) is not None:
                return await self._runs.get(project, earlier)
            raise
        finally:
            self._in_flight.settle(claim)
        match made:
            case Replayed(resource_id=run_id):
                return await self._runs.get(project, run_id)
            case KeyReused():
                raise reused(made)
            case Refused():
                raise Invalid(
                    "from_step must be a step that the execution has done, or failed in",
                    location="body.from_step",
                    status=400,
                )
        self._ledger.apply(made.changed)
        [run] = made.runs
        return run

    async def _new(self, project: Project, source: Run, order: RerunOrder) -> NewRun:
        given = await self._store.input(source)
        deployment = self._registry.deployment(project, order.deployment_id or source.deployment_id)
        offer = self._registry.offer(project.id, deployment.id, source.workflow_id)
        await self._offers.check_payload(project.organization_id, offer, given.payload)
        return NewRun(
            id=new_id(self._clock),
            project_id=project.id,
            workflow_id=source.workflow_id,
            payload=given.payload,
            deployment_id=deployment.id,
            queue_name=source.queue_name,
            concurrency_key=source.concurrency_key,
            priority=source.priority,
            session_id=source.session_id,
            user_id=source.user_id,
            max_retries=offer.retry_policy.max_retries,
            run_timeout_seconds=source.run_timeout_seconds or offer.run_timeout_seconds,
            initial_state=given.initial_state,
            channel_context=given.channel_context,
            now=self._clock.now(),
        )
