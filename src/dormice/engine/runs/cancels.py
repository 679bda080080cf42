"""Ends what runs of runs whose end was asked for: the worker is told, until it says that it has ended."""

from __future__ import annotations

from dormice.domain.execution import Micros
from dormice.domain.run import CancelledBy, Run, RunState
from dormice.engine.clock import Clock
from dormice.engine.runs.agenda import Agenda
from dormice.engine.runs.board import RunBoard
from dormice.engine.runs.commands import Commands
from dormice.engine.runs.ledger import Ledger
from dormice.engine.runs.policy import RunPolicy
from dormice.engine.tasks import Tasks
from dormice.store.workflows import Attempt, Moved, RunStore
from dormice.workers.interface import CancelAnswer, Pusher


class Cancels:
    """Tells workers, and tells them again."""

    def __init__(
        self,
        *,
        store: RunStore,
        board: RunBoard,
        commands: Commands,
        ledger: Ledger,
        agenda: Agenda,
        pusher: Pusher,
        tasks: Tasks,
        clock: Clock,
        policy: RunPolicy,
    ) -> None:
        self._store = store
        self._board = board
        self._commands = commands
        self._ledger = ledger
        self._agenda = agenda
        self._pusher = pusher
        self._tasks = tasks
        self._clock = clock
        self._policy = policy

    def begin(self, run: Run) -> None:
        """Have the worker of a run, and its commands, end it. The request is in the store: it is repeated after a crash."""
        self._commands.cancel(run)
        now = self._clock.steady()
        self._agenda.put(now, ("cancel", run.id), lambda: self._tell(run.id, since=now))

    async def time_out(self, run_id: str) -> None:
        """Ask for the end of a run that has run too long, and of all below it."""
        run = self._board.runs.get(run_id)
        if run is not None:
            now = self._clock.now()
            asked = await self._store.request_cancel(run.project_id, run_id, CancelledBy.TIMEOUT, now=now)
            self._ledger.apply(asked.changed)

    async def _tell(self, run_id: str, *, since: Micros) -> None:
        run = self._board.runs.get(run_id)
        if run is None or run.state is not RunState.PENDING_CANCEL:
            return
        worker = self._board.workers.get(run.worker_id or "")
        waited = self._clock.steady() - since
        if run.worker_id is None:
            return  # its commands are being ended, and the last one ends it
        if worker is None or waited >= self._policy.cancel_given_up_ms * 1000:
            await self._cancelled(run)
            return
        if (run.id, run.fence) in self._board.offered:
            return  # "I do not have it" would not mean that it never will: it is told once its push is answered
        again = self._clock.steady() + self._policy.cancel_again_ms * 1000
        self._agenda.put(again, ("cancel", run_id), lambda: self._tell(run_id, since=since))
        if worker.worker.mode == "push":
            url = worker.worker.url or ""
            self._tasks.start(f"cancel of {run_id}", lambda: self._push(run, url))
        elif worker.channel is not None:
            worker.channel.send(run)

    async def _push(self, run: Run, url: str) -> None:
        answer = await self._pusher.cancel(url, run.worker_id or "", run.id)
        if answer is CancelAnswer.UNKNOWN:
            await self._cancelled(run)

    async def _cancelled(self, run: Run) -> None:
        done = await self._store.cancelled(run.id, Attempt(fence=run.fence), None, now=self._clock.now())
        if isinstance(done, Moved):
            self._ledger.apply(done.changed)
