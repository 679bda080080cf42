"""Gives runs to workers: the claim is written first, the run is sent after its commit.

A worker that is called (push) says no, yes, or nothing at all. After silence the run may be running there: it is not given to anybody
else before the worker has said what it knows (contract, section 7, number 4).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable

from dormice.crash_points import CrashPoint, reached
from dormice.domain.execution import Micros
from dormice.domain.run import HELD, Run, RunState
from dormice.engine.clock import Clock
from dormice.engine.observer import Observer
from dormice.engine.runs.agenda import Agenda
from dormice.engine.runs.board import LiveWorker, RunBoard
from dormice.engine.runs.ledger import Ledger
from dormice.engine.runs.policy import RunPolicy
from dormice.engine.service import attempt
from dormice.engine.tasks import Tasks
from dormice.store.workflows import Moved, Refused, RunStore
from dormice.workers.interface import CancelAnswer, PushAnswer, Pusher
from dormice.workers.messages import execute_body

log = logging.getLogger(__name__)

MOST_FAILURES = 3
"""Pushes in a row that fail before a worker is given nothing more until it is heard of."""
REFUSED_SECONDS = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0)
"""Pauses between attempts to reach a worker that does not listen: it says that it is there before it does."""
REST_US = 250_000
"""How long a worker that says that it is full is left alone."""
REPEATED_US = 15_000_000
"""From a report of the foreign SDK that was not answered to its last repetition: after pauses of 1, 2, 4 and 8 s."""
REPEATS_US = 9_000_000
"""The longest of these pauses, and a little."""


class RunDispatcher:
    """One service for all projects."""

    def __init__(
        self,
        *,
        store: RunStore,
        board: RunBoard,
        ledger: Ledger,
        agenda: Agenda,
        pusher: Pusher,
        tasks: Tasks,
        clock: Clock,
        policy: RunPolicy,
        observer: Observer,
    ) -> None:
        self._store = store
        self._board = board
        self._ledger = ledger
        self._agenda = agenda
        self._pusher = pusher
        self._tasks = tasks
        self._clock = clock
        self._policy = policy
        self._observer = observer
        self._silent: dict[str, int] = {}
        """Fences of runs whose push had no answer."""
        self._missed: dict[str, frozenset[tuple[str, int]]] = {}
        """By worker: runs (and their fences) that it should have had when it said that it has none."""

    async def turn(self) -> None:
        """Wait until something may be given, then give all that can be. Raises StoreUnavailable: nothing is lost."""
        await self._ledger.work.wait()
        self._ledger.work.clear()
        picked = self._pick()
        claims = [self._claim(run, worker) for run, worker in picked]
        failures: list[BaseException] = []
        for (run, worker), claimed in zip(picked, await asyncio.gather(*claims, return_exceptions=True), strict=True):
            if isinstance(claimed, Moved):
                self._claimed(claimed, worker)
                continue
            self._board.put_back(run, worker)
            if isinstance(claimed, BaseException):
                failures.append(claimed)
        if failures:
            self._ledger.work.set()
            raise failures[0]

    def _pick(self) -> list[tuple[Run, LiveWorker]]:
        picked: list[tuple[Run, LiveWorker]] = []
        now = self._clock.steady()
        while self._board.dirty:
            where, _ = self._board.dirty.popitem()
            able = [worker for worker in self._board.workers_of(where) if self._able(worker, now)]
            while able:
                worker = min(able, key=lambda one: (one.failures, len(one.held), one.pushed_at))
                run = self._board.pick(worker) if worker.free > 0 else None
                if run is None:
                    able.remove(worker)
                else:
                    worker.pushed_at = now
                    picked.append((run, worker))
        return picked

    def _able(self, worker: LiveWorker, now: Micros) -> bool:
        return (
            worker.online
            and worker.failures < MOST_FAILURES
            and worker.rests_until <= now
            and (worker.worker.mode == "push" or worker.channel is not None)
        )

    def _claim(self, run: Run, worker: LiveWorker) -> Awaitable[Moved | Refused]:
        accepted_at = None if worker.worker.mode == "push" else self._clock.steady()
        return self._store.claim(run.id, worker.worker.id, now=self._clock.now(), accepted_at=accepted_at)

    def _claimed(self, claimed: Moved, worker: LiveWorker) -> None:
        reached(CrashPoint.RUN_CLAIMED)
        run = claimed.run
        self._ledger.apply(claimed.changed)
        if worker.worker.mode == "push":
            self._tasks.start(f"push of {run.id}", lambda: self._push(run, worker))
        elif worker.worker.id not in self._board.workers:  # lost while the claim was written
            self._tasks.start(f"release of {run.id}", lambda: self.release(run, crashed=False))
        elif worker.channel is not None:
            worker.channel.send(run)
            self._observer.pulled()

    async def _push(self, run: Run, worker: LiveWorker) -> None:
        """Send a claimed run, once, and see what becomes of it."""
        if not self._still(run):
            return
        given = await self._store.input(run)
        body = execute_body(
            run,
            payload=given.payload,
            initial_state=given.initial_state,
            channel_context=given.channel_context,
            traceparent=given.traceparent,
            span_id=given.span_id,
        )
        offered, failures = (run.id, run.fence), worker.failures
        self._board.offered.add(offered)
        try:
            answer = await self._send(run, worker, body)
        finally:
            self._board.offered.discard(offered)
        self._observer.pushed(answer)
        self._ledger.end(run.id)
        await attempt(f"answer for {run.id}", lambda: self._answered(run, worker, answer, failures))

    async def _send(self, run: Run, worker: LiveWorker, body: bytes) -> PushAnswer:
        answer = PushAnswer.REFUSED
        for pause in (*REFUSED_SECONDS, 0.0):
            if not self._still(run):
                break
            answer = await self._pusher.execute(worker.worker.url or "", worker.worker.id, body)
            if answer is not PushAnswer.REFUSED:
                break
            await asyncio.sleep(pause)
        return answer

    async def _answered(self, run: Run, worker: LiveWorker, answer: PushAnswer, before: int) -> None:
        """See what becomes of a push. `before`: the failures of the worker when it began."""
        if answer is PushAnswer.ACCEPTED:
            reached(CrashPoint.PUSH_ANSWERED)
            worker.failures = 0
            await self._accept(run)
        elif answer is PushAnswer.AMBIGUOUS:
            _count_failure(worker, before)
            self.ask_after(run, self._policy.silent_push_ms)
        else:
            if answer is PushAnswer.FULL:
                self.rest(worker.worker.id, REST_US)
            else:
                log.warning("worker %s did not take a run: %s", worker.worker.id, answer.value)
                _count_failure(worker, before)
                if answer is PushAnswer.MISMATCH:
                    worker.failures = MOST_FAILURES
            await self.release(run, crashed=False)

    async def _accept(self, run: Run) -> None:
        accepted = await self._store.accept(run.id, run.fence, now=self._clock.now(), accepted_at=self._clock.steady())
        if isinstance(accepted, Moved):
            reached(CrashPoint.ACCEPT_COMMITTED)
            self._ledger.apply(accepted.changed)

    async def release(self, run: Run, *, crashed: bool, pause_ms: int = 0) -> None:
        """Put a run back that a worker has not taken, has given up, or was lost with; for `pause_ms` it is given to nobody."""
        released = await self._store.release(
            run.id,
            run.fence,
            now=self._clock.now(),
            not_before=self._clock.steady() + pause_ms * 1000 if pause_ms else 0,
            crashed=crashed,
            most_crashes=self._policy.crashes,
        )
        reached(CrashPoint.RELEASE_COMMITTED)
        self._ledger.apply(released.changed)

    def ask_after(self, run: Run, delay_ms: int) -> None:
        """Ask the worker of a claimed run, if nothing is heard of it by then, whether it has it."""
        self._silent[run.id] = run.fence
        due = self._clock.steady() + delay_ms * 1000
        self._agenda.put(due, ("silent", run.id), lambda: self._ask(run))

    def find_again(self, run: Run) -> None:
        """Take up a run as the store has it at a start of the server. Before the ledger knows it."""
        now = self._clock.steady()
        if (
            run.state in HELD and run.worker_id not in self._board.workers
        ):  # the worker was forgotten, and a crash came then
            self._tasks.start(f"release of {run.id}", lambda: self.release(run, crashed=True))
        elif run.state is RunState.CLAIMED:  # whether its push arrived is not known
            self.ask_after(run, self._policy.restart_ms)
        elif run.state is RunState.QUEUED and run.retry_count > 0 and run.not_before + REPEATED_US > now:
            # The end of the server may have cut off the answer to its failure. Told again, that must not meet the next attempt.
            where = (run.project_id, run.deployment_id)
            if any(live.worker.mode == "push" for live in self._board.workers_of(where)):
                self._ledger.hold(run.id, now + REPEATS_US)

    async def heard_of(self, run: Run) -> None:
        """A worker wrote of a run, so it has it, whatever became of the answer to its push."""
        if self._silent.get(run.id) == run.fence and run.state is RunState.CLAIMED:
            del self._silent[run.id]
            self._agenda.drop(("silent", run.id))
            await self._accept(run)

    async def _ask(self, run: Run) -> None:
        if self._silent.get(run.id) != run.fence:
            return
        if not self._still(run):
            del self._silent[run.id]
            return
        worker = self._board.workers.get(run.worker_id or "")
        if worker is None:
            del self._silent[run.id]
            await self.release(run, crashed=True)
            return
        # The answer may take long, and other moments wait for this turn's end.
        self._tasks.start(f"question after {run.id}", lambda: self._ask_worker(run, worker))

    async def _ask_worker(self, run: Run, worker: LiveWorker) -> None:
        match await self._pusher.cancel(worker.worker.url or "", worker.worker.id, run.id):
            case CancelAnswer.UNKNOWN:
                self._silent.pop(run.id, None)
                await self.release(run, crashed=False)
            case CancelAnswer.REQUESTED:
                self._silent.pop(run.id, None)  # its confirmation puts the run back
                await self._accept(run)
            case CancelAnswer.FAILED:
                self.ask_after(run, self._policy.silent_push_ms)

    def rest(self, worker_id: str | None, micros: Micros) -> None:
        """Give a worker nothing for a while."""
        worker = self._board.workers.get(worker_id or "")
        if worker is not None:
            worker.rests_until = self._clock.steady() + micros
            self._agenda.put(worker.rests_until, ("rest", worker.worker.id), lambda: self._look(worker))

    async def _look(self, worker: LiveWorker) -> None:
        self.look(worker)

    def look(self, worker: LiveWorker) -> None:
        """See whether there is something for a worker."""
        self._board.dirty[worker.place] = None
        self._ledger.work.set()

    def audit(self, worker: LiveWorker) -> None:
        """Find out whether a worker still has the runs that it should have.

        Its reports may have been lost for so long that it gave them up, and it has no way to say so later. It tells only how many runs it
        has: when that is none, twice in a row, and nothing has changed in between, it has none of those.
        """
        runs = (self._board.runs.get(run_id) for run_id in worker.held)
        held = frozenset((run.id, run.fence) for run in runs if run is not None and run.state is RunState.RUNNING)
        if worker.worker.mode == "push" and held:
            self._tasks.start(f"audit of {worker.worker.id}", lambda: self._audit(worker, held))

    async def _audit(self, worker: LiveWorker, held: frozenset[tuple[str, int]]) -> None:
        count = await self._pusher.held(worker.worker.url or "", worker.worker.id)
        missed = self._missed.pop(worker.worker.id, frozenset())
        if count == 0:
            self._missed[worker.worker.id] = held
            runs = [self._board.runs.get(run_id) for run_id, _ in held & missed]
            lost = [run for run in runs if run is not None and (run.id, run.fence) in held]
            await asyncio.gather(*(self.release(run, crashed=True) for run in lost))

    async def lose(self, worker: LiveWorker, held: Iterable[str]) -> None:
        """Put back what a worker had that is gone."""
        self._missed.pop(worker.worker.id, None)
        runs = [run for run in map(self._board.runs.get, held) if run is not None and run.state in HELD]
        await asyncio.gather(*(self.release(run, crashed=True) for run in runs if run.worker_id == worker.worker.id))

    def _still(self, run: Run) -> bool:
        current = self._board.runs.get(run.id)
        return current is not None and current.state is RunState.CLAIMED and current.fence == run.fence


def _count_failure(worker: LiveWorker, before: int) -> None:
    """Count a push that failed; one that was under way together with another one that did is the same failure."""
    if worker.failures <= before:
        worker.failures += 1
