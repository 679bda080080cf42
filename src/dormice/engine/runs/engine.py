"""Puts the engine of runs together and runs its services."""

from __future__ import annotations

import asyncio
from typing import Protocol

from dormice.crash_points import CrashPoint, reached
from dormice.domain.limits import Limits
from dormice.engine.clock import Clock
from dormice.engine.executions import Executions
from dormice.engine.feed import Feed
from dormice.engine.idempotency import InFlight
from dormice.engine.observer import Observer
from dormice.engine.runs.agenda import Agenda
from dormice.engine.runs.approvals import Approvals
from dormice.engine.runs.attempts import Attempts
from dormice.engine.runs.automatic import AutomaticRuns
from dormice.engine.runs.batches import Batches
from dormice.engine.runs.board import RunBoard
from dormice.engine.runs.cancels import Cancels
from dormice.engine.runs.census import RunCensus, take_run_census
from dormice.engine.runs.commands import Commands
from dormice.engine.runs.dispatcher import RunDispatcher
from dormice.engine.runs.events import Events
from dormice.engine.runs.ledger import Ledger
from dormice.engine.runs.lists import Lists
from dormice.engine.runs.offers import Offers
from dormice.engine.runs.policy import RunPolicy
from dormice.engine.runs.pull import Pull
from dormice.engine.runs.registry import Registry
from dormice.engine.runs.reruns import Reruns
from dormice.engine.runs.runs import Runs
from dormice.engine.runs.schedules import Schedules
from dormice.engine.runs.schema_checks import SchemaChecks
from dormice.engine.runs.sessions import Sessions
from dormice.engine.runs.traces import Traces
from dormice.engine.runs.triggers import Triggers
from dormice.engine.runs.waits import Waits
from dormice.engine.runs.workers import Workers
from dormice.engine.service import serve
from dormice.engine.tasks import Tasks
from dormice.store.automation import AutomationStore
from dormice.store.workflows import WorkflowStore
from dormice.workers.interface import Pusher


class RunEngineStore(WorkflowStore, AutomationStore, Protocol):
    """The part of the store that the engine of runs needs."""


class RunEngine:
    """The object graph of runs. `start` first, then the API may use its parts."""

    def __init__(
        self,
        *,
        store: RunEngineStore,
        executions: Executions,
        pusher: Pusher,
        clock: Clock,
        policy: RunPolicy,
        limits: Limits,
        in_flight: InFlight,
        tasks: Tasks,
        group: asyncio.TaskGroup,
        failing: set[str],
        observer: Observer | None = None,
    ) -> None:
        """`failing`: where the services whose last turn failed are named."""
        self._store = store
        self._group = group
        self._failing = failing
        self._observer = observer = observer or Observer()
        self._board = board = RunBoard()
        self._feed = feed = Feed()
        self._agenda = agenda = Agenda(clock)
        self._ledger = ledger = Ledger(board=board, agenda=agenda, feed=feed, clock=clock)
        self._dispatcher = dispatcher = RunDispatcher(
            store=store.runs,
            board=board,
            ledger=ledger,
            agenda=agenda,
            pusher=pusher,
            tasks=tasks,
            clock=clock,
            policy=policy,
            observer=observer,
        )
        self.commands = commands = Commands(
            store=store.runs, executions=executions, ledger=ledger, tasks=tasks, clock=clock
        )
        cancels = Cancels(
            store=store.runs,
            board=board,
            commands=commands,
            ledger=ledger,
            agenda=agenda,
            pusher=pusher,
            tasks=tasks,
            clock=clock,
            policy=policy,
        )
        ledger.bind(cancels)
        self._checks = checks = SchemaChecks(limits.schema_check_ms)
        offers = Offers(checks)
        self.registry = registry = Registry(store=store.projects, board=board, offers=offers, clock=clock)
        self.workers = Workers(
            store=store.projects,
            board=board,
            cancels=cancels,
            agenda=agenda,
            dispatcher=dispatcher,
            registry=registry,
            pusher=pusher,
            tasks=tasks,
            clock=clock,
            policy=policy,
        )
        self.runs = runs = Runs(
            store=store.runs,
            board=board,
            ledger=ledger,
            registry=registry,
            offers=offers,
            feed=feed,
            in_flight=in_flight,
            tasks=tasks,
            clock=clock,
        )
        self._waits = waits = Waits(store=store.runs, ledger=ledger, clock=clock)
        self.attempts = Attempts(
            store=store.runs,
            ledger=ledger,
            dispatcher=dispatcher,
            registry=registry,
            offers=offers,
            runs=runs,
            waits=waits,
            commands=commands,
            tasks=tasks,
            clock=clock,
        )
        automatic = AutomaticRuns(board=board, ledger=ledger, registry=registry, offers=offers, clock=clock)
        self.schedules = Schedules(
            store=store.schedules,
            registry=registry,
            runs=automatic,
            agenda=agenda,
            tasks=tasks,
            clock=clock,
            policy=policy,
        )
        self.triggers = triggers = Triggers(
            store=store.triggers,
            registry=registry,
            runs=automatic,
            agenda=agenda,
            tasks=tasks,
            clock=clock,
            policy=policy,
        )
        self.events = Events(
            store=store.events,
            ledger=ledger,
            triggers=triggers,
            feed=feed,
            tasks=tasks,
            clock=clock,
            observer=observer,
        )
        self.pull = Pull(
            store=store.runs,
            board=board,
            registry=registry,
            workers=self.workers,
            dispatcher=dispatcher,
            clock=clock,
            lost_ms=policy.pull_lost_ms,
        )
        self.batches = Batches(
            store=store.runs,
            board=board,
            ledger=ledger,
            dispatcher=dispatcher,
            attempts=self.attempts,
            runs=runs,
            waits=waits,
            events=self.events,
            workers=self.workers,
            tasks=tasks,
            clock=clock,
            limits=limits,
        )
        self.approvals = Approvals(
            store=store.events,
            runs=store.runs,
            board=board,
            registry=registry,
            events=self.events,
            tasks=tasks,
            clock=clock,
        )
        self.traces = Traces(store=store.traces, runs=store.runs, board=board, clock=clock)
        self.lists = lists = Lists(store=store.lists, board=board, registry=registry, workers=self.workers, clock=clock)
        self.sessions = Sessions(
            store=store.sessions,
            run_lists=store.lists,
            events=store.events,
            runs=runs,
            lists=lists,
            clock=clock,
        )
        self.reruns = Reruns(
            store=store.runs,
            runs=runs,
            ledger=ledger,
            registry=registry,
            offers=offers,
            in_flight=in_flight,
            tasks=tasks,
            clock=clock,
        )

    async def start(self) -> None:
        """Rebuild memory from the store, then start the services."""
        await self.registry.load()
        await self.workers.load()
        await self.commands.load()
        for run in await self._store.runs.open():
            self._dispatcher.find_again(run)
            self._ledger.apply([run])
        self._ledger.watch(self._observer)
        await self._waits.load()
        await self.schedules.load()
        await self.triggers.load()
        reached(CrashPoint.RUNS_LOADED)
        self._group.create_task(self._checks.serve(), name="schema checks")
        for name, turn in (
            ("run dispatcher", self._dispatcher.turn),
            ("triggers", self.triggers.turn),
            ("agenda", self._agenda.turn),
        ):
            self._group.create_task(serve(name, turn, self._failing), name=name)

    def census(self) -> RunCensus:
        """Count what there is at this moment."""
        return take_run_census(self._board, self._ledger)

    def drain(self) -> None:
        """Answer everybody who waits for something with what there is: the server is about to stop."""
        self._feed.close()

    def wake(self) -> None:
        """Look at what is due: a clock was moved."""
        self._agenda.wake()
