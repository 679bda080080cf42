"""Runs that wait: for a moment or for an event. A moment is kept on the agenda, an event comes with its publication."""

from __future__ import annotations

from dormice.crash_points import CrashPoint, reached
from dormice.domain.errors import Conflict, NotFound
from dormice.domain.run import Run
from dormice.engine.clock import Clock
from dormice.engine.runs.ledger import Ledger
from dormice.store.workflows import Attempt, Due, NewWait, Refused, RunStore


class Waits:
    """Begins waits, and ends those whose moment has come."""

    def __init__(self, *, store: RunStore, ledger: Ledger, clock: Clock) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock

    async def load(self) -> None:
        """Rebuild memory from the store."""
        for due in await self._store.dues():
            self.expect(due)
        for wait in await self._store.open_waits():
            self._ledger.waits_for(wait.run_id, {wait.step_key: wait.kind})

    async def begin(self, run: Run, attempt: Attempt, wait: NewWait) -> Run:
        """Have a run wait. Raises NotFound, Conflict."""
        done = await self._store.wait(run.id, attempt, wait, now=self._clock.now(), steady=self._clock.steady())
        if isinstance(done, Refused):
            raise cannot_wait(done)
        reached(CrashPoint.WAIT_COMMITTED)
        self._ledger.unwinds(run.id, done.changed)
        self._ledger.apply(done.changed)
        self._ledger.waits_for(run.id, {wait.step_key: wait.kind})
        if done.due_at is not None:
            self.expect(Due(run_id=run.id, step_key=wait.step_key, due_at=done.due_at))
        return done.run

    def expect(self, due: Due) -> None:
        """End a wait at its moment."""
        steady = self._clock.steady() + due.due_at - self._clock.now()
        self._ledger.expect(steady, due.run_id, due.step_key, lambda: self._expire(due))

    async def _expire(self, due: Due) -> None:
        if self._clock.now() < due.due_at:  # the host's clock was put back
            self.expect(due)
            return
        done = await self._store.expire(due.run_id, due.step_key, now=self._clock.now())
        reached(CrashPoint.TIMER_FIRED)
        self._ledger.over(due.run_id, due.step_key)
        self._ledger.apply(done.changed)


def cannot_wait(refused: Refused) -> Exception:
    """Return the error for a run that was to wait, and may not."""
    if refused.run is None:
        return NotFound("no such execution")
    return Conflict(f"the execution is {refused.run.state.value}, or another worker's: it cannot wait")
