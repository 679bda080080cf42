"""Takes what the store says has changed into memory, and sets going what follows from it.

Every change of a run goes through `apply`, in whatever order the commits are heard of: a record that is older than the known one is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from dormice.domain.execution import Micros
from dormice.domain.run import HELD, Run, RunState, WaitKind
from dormice.engine.clock import Clock
from dormice.engine.feed import Feed
from dormice.engine.observer import Observer
from dormice.engine.runs.agenda import Agenda
from dormice.engine.runs.board import RunBoard

UNWIND_US = 50_000
"""How long a foreign worker is given to let go of a run that waits, before it may be given it again (contract, section 2.7)."""
TIMEOUT_SLACK_US = 1_000_000
"""The worker measures run_timeout_seconds too, and knows best when it began: it goes first."""


class Ender(Protocol):
    """Ends what runs of a run."""

    def begin(self, run: Run) -> None:
        """Have the worker of a run, whose end was asked for, end it."""
        ...

    async def time_out(self, run_id: str) -> None:
        """Ask for the end of a run that has run too long."""
        ...


class Ledger:
    """The one way by which a change gets into memory."""

    def __init__(self, *, board: RunBoard, agenda: Agenda, feed: Feed, clock: Clock) -> None:
        self._board = board
        self._agenda = agenda
        self._feed = feed
        self._clock = clock
        self._ender: Ender | None = None
        self._observer = Observer()
        self._unwinding: dict[str, Micros] = {}
        """Moments before which runs are given to nobody."""
        self._timed: dict[str, set[str]] = {}
        """Step keys of waits that end at a moment, by run."""
        self._ready: dict[str, Micros] = {}
        """Runs that could run and that no worker has taken, with the moment (steady clock) since when: the longest waiting first."""
        self.work = asyncio.Event()
        """Set when something may be given to a worker."""

    def bind(self, ender: Ender) -> None:
        """Know who ends runs. Once, before anything is applied."""
        self._ender = ender

    def watch(self, observer: Observer) -> None:
        """Have somebody hear of changes from now on: what was loaded is none."""
        self._observer = observer

    @property
    def ready(self) -> int:
        """How many runs could run and have not been taken by a worker."""
        return len(self._ready)

    @property
    def longest_ready(self) -> Micros:
        """How long one of them has been ready, at most; 0 without one."""
        now = self._clock.steady()
        return now - next(iter(self._ready.values()), now)

    def waits_for(self, run_id: str, waits: Mapping[str, WaitKind]) -> None:
        """Know what a run waits for, by step. After its record was applied."""
        run = self._board.runs.get(run_id)
        if run is not None and run.state is RunState.WAITING:  # it may have gone on already
            self._board.waits.begin(run_id, waits)

    def apply(self, changed: Iterable[Run]) -> None:
        """Take committed records."""
        for run in changed:
            self.place(run)
        if self._board.dirty:
            self.work.set()

    def place(self, run: Run) -> None:
        """Take one committed record."""
        before = self._board.runs.get(run.id)
        if not self._board.place(run):
            return
        self._observer.run_moved(before, run)
        if run.terminal:
            self._feed.notify(run.id, run)
        if run.state not in (RunState.QUEUED, RunState.CLAIMED):
            self._ready.pop(run.id, None)
        if run.state is not RunState.RUNNING:
            self._agenda.drop(("timeout", run.id))
        if run.closed:
            for step_key in self._timed.pop(run.id, ()):
                self._agenda.drop(("wait", run.id, step_key))
        match run.state:
            case RunState.QUEUED:
                self._queue(run)
            case RunState.RUNNING if run.run_timeout_seconds is not None and run.running_since is not None:
                due = run.running_since + run.run_timeout_seconds * 1_000_000 + TIMEOUT_SLACK_US
                self._agenda.put(due, ("timeout", run.id), lambda: self._time_out(run))
            case RunState.PENDING_CANCEL if self._ender is not None:
                self._ender.begin(run)
            case _ if run.terminal:
                self._unwinding.pop(run.id, None)

    def end(self, run_id: str) -> None:
        """Have a run end whose end was asked for while its push was under way."""
        run = self._board.runs.get(run_id)
        if run is not None and run.state is RunState.PENDING_CANCEL and self._ender is not None:
            self._ender.begin(run)

    def expect(self, due: Micros, run_id: str, step_key: str, action: Callable[[], Awaitable[None]]) -> None:
        """Have something done at the moment of a wait, unless the wait, or its run, has ended before."""
        run = self._board.runs.get(run_id)
        if run is not None and not run.closed:
            self._timed.setdefault(run_id, set()).add(step_key)
            self._agenda.put(due, ("wait", run_id, step_key), action)

    def over(self, run_id: str, step_key: str) -> None:
        """A wait has ended."""
        self._agenda.drop(("wait", run_id, step_key))
        timed = self._timed.get(run_id, set())
        timed.discard(step_key)
        if not timed:
            self._timed.pop(run_id, None)

    def unwinds(self, run_id: str, changed: Iterable[Run]) -> None:
        """A run was made to wait, as `changed` may show: a foreign worker that had it lets go of it now, and is not to be given it again
        before that.
        """
        before = self._board.runs.get(run_id)
        if before is None or before.state not in HELD or not any(run.id == run_id for run in changed):
            return
        worker = self._board.workers.get(before.worker_id or "")
        if worker is not None and worker.worker.mode == "push":
            self._unwinding[run_id] = self._clock.steady() + UNWIND_US

    def hold(self, run_id: str, until: Micros) -> None:
        """Give a run that is not yet known to nobody before that moment."""
        self._unwinding[run_id] = until

    def unwound(self, run_id: str) -> None:
        """It has let go."""
        if self._unwinding.pop(run_id, None) is not None:
            self._now_ready(run_id)

    def _queue(self, run: Run) -> None:
        now = self._clock.steady()
        due = max(run.not_before, self._unwinding.get(run.id, 0))
        if due <= now:
            self._unwinding.pop(run.id, None)
            self._agenda.drop(("ready", run.id))
            self._board.queue(run)
            self._ready.setdefault(run.id, now)
        else:
            self._ready.pop(run.id, None)
            self._agenda.put(due, ("ready", run.id), lambda: self._due(run.id))

    async def _due(self, run_id: str) -> None:
        self._now_ready(run_id)

    def _now_ready(self, run_id: str) -> None:
        run = self._board.runs.get(run_id)
        if run is not None and run.state is RunState.QUEUED:
            self._queue(run)
            self.work.set()

    async def _time_out(self, run: Run) -> None:
        current = self._board.runs.get(run.id)
        if current is not None and current.fence == run.fence and current.state is RunState.RUNNING and self._ender:
            await self._ender.time_out(run.id)
