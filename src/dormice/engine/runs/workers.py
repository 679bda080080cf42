"""Workers: they come, are heard of, fall silent, and are replaced."""

from __future__ import annotations

import logging
from uuid import uuid4

from dormice.crash_points import CrashPoint, reached
from dormice.domain.errors import NotFound
from dormice.domain.run import RunState
from dormice.engine.clock import Clock
from dormice.engine.runs.agenda import Agenda
from dormice.engine.runs.board import LiveWorker, RunBoard
from dormice.engine.runs.cancels import Cancels
from dormice.engine.runs.checks import uuid_of
from dormice.engine.runs.dispatcher import RunDispatcher
from dormice.engine.runs.orders import WorkerOrder
from dormice.engine.runs.policy import RunPolicy
from dormice.engine.runs.registry import Registry
from dormice.engine.tasks import Tasks
from dormice.store.projects import Project, ProjectStore, Worker
from dormice.workers.interface import Pusher

log = logging.getLogger(__name__)


class Workers:
    """When a worker was last heard of is kept in memory only: a start of the server counts as hearing of all."""

    def __init__(
        self,
        *,
        store: ProjectStore,
        board: RunBoard,
        cancels: Cancels,
        agenda: Agenda,
        dispatcher: RunDispatcher,
        registry: Registry,
        pusher: Pusher,
        tasks: Tasks,
        clock: Clock,
        policy: RunPolicy,
    ) -> None:
        self._store = store
        self._board = board
        self._cancels = cancels
        self._agenda = agenda
        self._dispatcher = dispatcher
        self._registry = registry
        self._pusher = pusher
        self._tasks = tasks
        self._clock = clock
        self._policy = policy

    async def load(self) -> None:
        """Rebuild memory from the store."""
        for worker in await self._store.workers():
            live = LiveWorker(worker, self._clock.steady(), online=True)
            self._board.workers[worker.id] = live
            self._watch(live)

    async def register(self, project: Project, order: WorkerOrder) -> Worker:
        """Record a worker. One that comes with the address of an earlier one has taken its place: that one is lost."""
        deployment = (
            await self._registry.deploy(project, order.deployment_id)
            if order.deployment_id is not None
            else self._registry.deployment(project, None)
        )
        worker = Worker(
            id=str(uuid4()),
            project_id=project.id,
            deployment_id=deployment.id,
            mode=order.mode,
            url=order.url,
            max_concurrent=order.max_concurrent,
            capabilities=order.capabilities,
            created_at=self._clock.now(),
        )
        await self._store.add_worker(worker)
        reached(CrashPoint.WORKER_COMMITTED)
        earlier = [
            live
            for live in self._board.workers.values()
            if order.url is not None and live.worker.url == order.url and live.worker.project_id == project.id
        ]
        live = self._board.workers[worker.id] = LiveWorker(worker, self._clock.steady())
        self._watch(live)
        for one in earlier:
            await self._lose(one, "another worker has its address")
        return worker

    def online(self, project: Project, worker_id: str) -> None:
        """Let a worker be given runs. Raises NotFound."""
        live = self.find(project, worker_id)
        if live is None:
            raise NotFound("no such worker: register again")
        self.heard_of(live)
        live.online = True
        self._dispatcher.look(live)

    def heartbeat(self, project: Project, worker_id: str) -> bool:
        """Hear of a worker; return whether it is known. One that was given up for failing pushes gets work again."""
        live = self.find(project, worker_id)
        if live is None:
            return False
        self.heard_of(live)
        live.failures = 0
        live.online = True
        self._dispatcher.look(live)
        self._dispatcher.audit(live)
        return True

    def active(self, project: Project, deployment_id: str | None = None) -> list[LiveWorker]:
        """Return the workers that are given runs."""
        silent = self._clock.steady() - self._policy.worker_silent_ms * 1000
        return [
            live
            for live in self._board.workers.values()
            if live.worker.project_id == project.id
            and deployment_id in (None, live.worker.deployment_id)
            and live.online
            and live.heard_at > silent
            and (live.worker.mode == "push" or live.channel is not None)
        ]

    def all(self, project: Project) -> list[LiveWorker]:
        """Return every worker that is not forgotten."""
        return [live for live in self._board.workers.values() if live.worker.project_id == project.id]

    def find(self, project: Project, worker_id: str) -> LiveWorker | None:
        """Return a worker that is not forgotten. Raises Invalid."""
        live = self._board.workers.get(uuid_of(worker_id, "path.worker_id"))
        return live if live is not None and live.worker.project_id == project.id else None

    def heard_of(self, live: LiveWorker) -> None:
        """Hear of a worker."""
        live.heard_at = self._clock.steady()
        self._watch(live)

    async def lose(self, live: LiveWorker, reason: str) -> None:
        """Forget a worker, and put back what it has."""
        if live.worker.id in self._board.workers:
            await self._lose(live, reason)

    def _watch(self, live: LiveWorker) -> None:
        pull = live.worker.mode == "pull"
        due = live.heard_at + (self._policy.pull_lost_ms if pull else self._policy.worker_silent_ms) * 1000
        self._agenda.put(due, ("worker", live.worker.id), lambda: self._silent(live))

    async def _silent(self, live: LiveWorker) -> None:
        if live.worker.id not in self._board.workers:
            return
        if live.worker.mode == "pull":
            if live.heard_at + self._policy.pull_lost_ms * 1000 > self._clock.steady():
                self._watch(live)  # it was heard of since
            else:
                await self._lose(live, "it was not heard of any more")
            return
        live.online = False
        lost = live.heard_at + self._policy.worker_lost_ms * 1000
        if lost <= self._clock.steady():
            await self._lose(live, "it was not heard of any more")
        else:
            self._agenda.put(lost, ("worker", live.worker.id), lambda: self._silent(live))
            self._tasks.start(f"search for {live.worker.id}", lambda: self._search(live))

    async def _search(self, live: LiveWorker) -> None:
        """Lose a worker that fell silent, and at whose address nobody listens: it has died."""
        if await self._pusher.listens(live.worker.url or "", live.worker.id):
            return
        if not live.online:  # not heard of meanwhile
            await self.lose(live, "it was not heard of any more, and nobody listens at its address")

    async def _lose(self, live: LiveWorker, reason: str) -> None:
        log.warning("worker %s is lost: %s", live.worker.id, reason)
        held = list(live.held)
        live.online = False
        if live.channel is not None:
            live.channel.close()
        # First the worker, then its runs: a server that dies in between finds runs whose worker it does not know. The other way round
        # it would know a worker that has runs which are not its any more, and give it them again.
        await self._store.remove_worker(live.worker.id)
        reached(CrashPoint.WORKER_FORGOTTEN)
        await self._dispatcher.lose(live, held)
        await self._dispatcher.lose(live, list(live.held))  # claims that were being written meanwhile
        self._board.workers.pop(live.worker.id, None)
        self._agenda.drop(("worker", live.worker.id))
        for run in filter(None, map(self._board.runs.get, held)):
            if run.state is RunState.PENDING_CANCEL:  # nobody is left to say that it has ended
                self._cancels.begin(run)
