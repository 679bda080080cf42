"""Puts the engine together and runs its services."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from dormice.crash_points import CrashPoint, reached
from dormice.domain.limits import Limits, MachineDefaults
from dormice.engine.artifacts import Artifacts
from dormice.engine.autoresizing import Autoresizing
from dormice.engine.board import Board
from dormice.engine.census import Census, StoredCensus, take_census, take_stored_census
from dormice.engine.channels import Channels
from dormice.engine.clock import Clock
from dormice.engine.collector import CollectionHints, Collector
from dormice.engine.dispatcher import Dispatcher
from dormice.engine.executions import Executions
from dormice.engine.feed import Feed
from dormice.engine.files import Files
from dormice.engine.gateway import Gateway
from dormice.engine.health import CHECK_EVERY_SECONDS, Health
from dormice.engine.idempotency import InFlight
from dormice.engine.key_tokens import KeyTokens
from dormice.engine.keys import Keys
from dormice.engine.lifecycle import Lifecycle
from dormice.engine.log_tokens import LogTokens
from dormice.engine.machines import Machines
from dormice.engine.observer import Observer, Observers
from dormice.engine.port_connections import PortConnections
from dormice.engine.previews import Previews
from dormice.engine.reaper import Reaper
from dormice.engine.reconciler import Reconciler
from dormice.engine.retention import Retention
from dormice.engine.runner import Runner
from dormice.engine.service import serve
from dormice.engine.snapshots import Snapshots
from dormice.engine.ssh_sessions import SshAuthority, SshSessions
from dormice.engine.stdin import StdinFeeder
from dormice.engine.tasks import Tasks
from dormice.engine.terminals import Terminals
from dormice.engine.tokens import Tokens
from dormice.engine.usage import Usage
from dormice.store.artifacts import Contents
from dormice.store.interface import Store

log = logging.getLogger(__name__)

ENDS_LOOKED_AT = 10_000
"""Of so many executions that ended last a start of the server learns when machines were last used: milliseconds, however many there are."""


class Engine:
    """The object graph of one server. `load` and `start` first, then the API may use its parts."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        limits: Limits,
        defaults: MachineDefaults,
        fingerprint: Callable[[bytes], str],
        group: asyncio.TaskGroup,
        observer: Observer | None = None,
        ssh_authority: SshAuthority | None = None,
        contents: Contents | None = None,
    ) -> None:
        """`contents` None: artifacts are not collected."""
        self._store = store
        self._clock = clock
        self._group = group
        self.gateway = gateway = Gateway()
        self._board = board = Board()
        self.feed = feed = Feed()
        self.tasks = tasks = Tasks(group)
        hints = CollectionHints()
        observer = Observers([hints, observer]) if observer else hints
        self.in_flight = in_flight = InFlight(store, clock, limits, fingerprint)
        self._feeder = feeder = StdinFeeder(store=store.executions, gateway=gateway, feed=feed)
        self._dispatcher = dispatcher = Dispatcher(
            store=store.executions,
            gateway=gateway,
            feeder=feeder,
            feed=feed,
            clock=clock,
            limits=limits,
            observer=observer,
        )
        self._runner = runner = Runner(
            store=store.executions,
            gateway=gateway,
            dispatcher=dispatcher,
            feeder=feeder,
            feed=feed,
            clock=clock,
            limits=limits,
            observer=observer,
        )
        lifecycle = Lifecycle(
            machines=store.machines,
            executions=store.executions,
            board=board,
            gateway=gateway,
            feed=feed,
            clock=clock,
            limits=limits,
            observer=observer,
        )
        self.channels = channels = Channels(
            board=board, lifecycle=lifecycle, gateway=gateway, feed=feed, tasks=tasks, clock=clock, limits=limits
        )
        self.snapshots = snapshots = Snapshots(
            store=store.snapshots,
            board=board,
            gateway=gateway,
            feed=feed,
            in_flight=in_flight,
            tasks=tasks,
            clock=clock,
            limits=limits,
        )
        self.usage = usage = Usage(store=store.usage, board=board, clock=clock, limits=limits)
        self.autoresizing = autoresizing = Autoresizing(
            store=store.autoresizing, lifecycle=lifecycle, tasks=tasks, limits=limits
        )
        self.files = files = Files(channels=channels, home=defaults.cwd, stall_ms=limits.file_stall_ms)
        tokens = Tokens(sign=fingerprint, clock=clock)
        self.keys = Keys(store=store.keys, clock=clock, limits=limits)
        self.key_tokens = KeyTokens(tokens, self.keys.is_valid)
        self.artifacts = Artifacts(store=store.artifacts, contents=contents, hints=hints, clock=clock)
        self._collector = (
            None
            if contents is None
            else Collector(
                store=store.artifacts,
                contents=contents,
                files=files,
                hints=hints,
                tasks=tasks,
                clock=clock,
                limits=limits,
            )
        )
        reconciler = Reconciler(
            board=board,
            lifecycle=lifecycle,
            dispatcher=dispatcher,
            runner=runner,
            feeder=feeder,
            channels=channels,
            snapshots=snapshots,
            usage=usage,
            autoresizing=autoresizing,
            clock=clock,
            group=group,
        )
        gateway.bind(reconciler)
        self._reaper = Reaper(
            store=store,
            board=board,
            lifecycle=lifecycle,
            reconciler=reconciler,
            runner=runner,
            feed=feed,
            clock=clock,
            limits=limits,
            observer=observer,
        )
        self.machines = Machines(
            store=store.machines,
            board=board,
            lifecycle=lifecycle,
            reconciler=reconciler,
            snapshots=snapshots,
            feed=feed,
            in_flight=in_flight,
            tasks=tasks,
            clock=clock,
            limits=limits,
            defaults=defaults,
        )
        self.executions = Executions(
            store=store.executions,
            board=board,
            machines=self.machines,
            dispatcher=dispatcher,
            reconciler=reconciler,
            feeder=feeder,
            feed=feed,
            in_flight=in_flight,
            tasks=tasks,
            clock=clock,
            limits=limits,
            observer=observer,
            hints=hints,
        )
        self.terminals = Terminals(
            store=store.terminals,
            logs=store.executions,
            executions=self.executions,
            machines=self.machines,
            feed=feed,
            in_flight=in_flight,
            tasks=tasks,
            clock=clock,
            limits=limits,
        )
        self.log_tokens = LogTokens(tokens=tokens, keys=store.keys, clock=clock, limits=limits)
        self.ssh_sessions = SshSessions(
            store=store.ssh_sessions,
            board=board,
            machines=self.machines,
            channels=channels,
            keys=self.keys,
            feed=feed,
            in_flight=in_flight,
            tasks=tasks,
            clock=clock,
            limits=limits,
            authority=ssh_authority,
        )
        self._retention = Retention(
            store=store, clock=clock, limits=limits, forgotten=self.ssh_sessions.hang_up_on_forgotten
        )
        self.previews = Previews(
            store=store.previews,
            machines=store.machines,
            board=board,
            channels=channels,
            connections=PortConnections(channels, limits),
            links=self.key_tokens,
            feed=feed,
            in_flight=in_flight,
            tasks=tasks,
            clock=clock,
            limits=limits,
        )
        self.health = Health(store=store, gateway=gateway)

    async def load(self) -> None:
        """Rebuild memory from the store. Before anybody asks for anything: what was asked in the midst of it would be forgotten."""
        ends = await self._store.executions.last_ends(ENDS_LOOKED_AT)
        for machine in await self._store.machines.live():
            # Where the last use of a machine is not known, our own start counts, so that none falls asleep too soon.
            now = self._clock.steady()
            self._board.add(machine, min(max(ends.get(machine.id, now), machine.last_activity_at), now))
        if self._collector is not None:
            await self._collector.load()
        waiting = 0
        for execution in await self._store.executions.open():
            live = self._board.get(execution.machine_id)
            if live is not None:
                live.place(execution)
                waiting += 1
        reached(CrashPoint.ENGINE_LOADED)
        log.info("engine has %d machines and %d open executions", sum(1 for _ in self._board), waiting)

    async def start(self) -> None:
        """Start the services. Before the node may connect."""
        await self.previews.resume()
        for name, turn in (
            ("dispatcher", self._dispatcher.turn),
            ("runner", self._runner.turn),
            ("stdin feeder", self._feeder.turn),
            ("reaper", self._reaper.turn),
            ("retention", self._retention.turn),
            ("snapshots", self.snapshots.turn),
            ("usage", self.usage.turn),
            ("uses of keys", self.keys.turn),
            ("previews", self.previews.turn),
            ("health", self._check_health),
            *([("artifacts", self._collector.turn)] if self._collector is not None else []),
        ):
            self._group.create_task(serve(name, turn, self.health.failing), name=name)

    def census(self) -> Census:
        """Count what there is at this moment."""
        return take_census(self._board, self._clock.now())

    async def stored_census(self) -> StoredCensus:
        """Count what the store has at this moment. Raises StoreUnavailable."""
        return await take_stored_census(self._store, self._clock)

    def drain(self) -> None:
        """Answer everybody who waits for something with what there is: the server is about to stop."""
        self.feed.close()

    async def _check_health(self) -> None:
        await self.health.check()
        await asyncio.sleep(CHECK_EVERY_SECONDS)
