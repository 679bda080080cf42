"""What happens because time passes: start deadlines, autosleep, machines that do not end what they should, a node that stays away, old keys."""

from __future__ import annotations

import asyncio
import logging

from dormice.domain.execution import Execution, Micros
from dormice.domain.limits import Limits
from dormice.domain.machine import Phase
from dormice.engine import outcomes
from dormice.engine.board import Board, LiveMachine
from dormice.engine.clock import Clock
from dormice.engine.feed import Feed
from dormice.engine.lifecycle import Lifecycle
from dormice.engine.observer import Observer
from dormice.engine.overdue import Overdue
from dormice.engine.reconciler import Reconciler
from dormice.engine.runner import Runner
from dormice.store.interface import Store

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
_SECOND_US = 1_000_000
_PRUNE_EVERY_US = 60 * _SECOND_US
_EXPIRE_TOGETHER = 256


class Reaper:
    """Looks at the clock a few times a second."""

    def __init__(
        self,
        *,
        store: Store,
        board: Board,
        lifecycle: Lifecycle,
        reconciler: Reconciler,
        runner: Runner,
        feed: Feed,
        clock: Clock,
        limits: Limits,
        observer: Observer,
    ) -> None:
        self._store = store
        self._board = board
        self._lifecycle = lifecycle
        self._reconciler = reconciler
        self._feed = feed
        self._clock = clock
        self._observer = observer
        self._limits = limits
        self._overdue = Overdue(limits, runner.owes)
        self._pruned_at: Micros = 0

    async def turn(self) -> None:
        """Wait a tick, then do what is due. Raises StoreUnavailable."""
        await asyncio.sleep(TICK_SECONDS)
        await self.reap()

    async def reap(self) -> None:
        """Do what is due now."""
        now = self._clock.steady()
        left_at = self._reconciler.node_left_at
        lost = left_at is not None and now - left_at > self._limits.machine_lost_ms * 1000
        for live in self._board:
            if live.queue or live.waking:
                await self._expire(live, now)
            if lost and live.machine.phase in (Phase.RUNNING, Phase.STARTING, Phase.STOPPING):
                await self._give_up(live)
            elif self._idle(live, now):
                await self._doze(live)
        for live, execution in self._overdue.look(self._board, now):
            self._condemn(live, execution)
        # A bounded number each time: as long as there is more, the next tick goes on.
        if now - self._pruned_at > _PRUNE_EVERY_US and not await self._store.prune_idempotency(now):
            self._pruned_at = now

    async def _expire(self, live: LiveMachine, now: Micros) -> None:
        due = [e for e in (*live.queue.values(), *live.waking.values()) if e.start_by <= now]
        for first in range(0, len(due), _EXPIRE_TOGETHER):
            batch = due[first : first + _EXPIRE_TOGETHER]
            moment = self._clock.now()
            ends = (self._store.executions.end_unstarted(execution.id, outcomes.expired(moment)) for execution in batch)
            answers = await asyncio.gather(*ends, return_exceptions=True)
            for ended in answers:
                if isinstance(ended, Execution):
                    live.drop(ended.id)
                    self._feed.notify(ended.id)
                    self._observer.finished(ended)
            for failure in answers:
                if isinstance(failure, BaseException):
                    raise failure

    def _idle(self, live: LiveMachine, now: Micros) -> bool:
        machine = live.machine
        return (
            machine.phase is Phase.RUNNING
            and live.attached
            and machine.autosleep_seconds > 0
            and not live.open_executions
            and not live.channels
            and not live.connections
            and now - live.last_activity_at >= machine.autosleep_seconds * _SECOND_US
        )

    async def _doze(self, live: LiveMachine) -> None:
        async with live.lock:
            if self._idle(live, self._clock.steady()):
                machine_id = live.machine.id
                log.info("machine %s is idle and goes to sleep", machine_id, extra={"machine_id": machine_id})
                await self._lifecycle.doze(live, "Autosleep")

    def _condemn(self, live: LiveMachine, execution: Execution) -> None:
        """Have the machine of an overdue execution ended. Its end is recorded when the node says so."""
        fields = {"machine_id": live.machine.id, "execution_id": execution.id}
        log.error("machine %s is ended: execution %s is overdue", *fields.values(), extra=fields)
        live.condemned = f"it did not end {execution.id}, whose timeout or cancel was over"
        self._lifecycle.send_stop(live.machine, grace_ms=0)

    async def _give_up(self, live: LiveMachine) -> None:
        async with live.lock:
            if live.machine.phase in (Phase.RUNNING, Phase.STARTING, Phase.STOPPING):
                seconds, machine_id = self._limits.machine_lost_ms // 1000, live.machine.id
                words = "machine %s is given up: its node has been away for %d s"
                log.error(words, machine_id, seconds, extra={"machine_id": machine_id})
                await self._lifecycle.down(live, f"its node has been away for {seconds} s", died=True)
