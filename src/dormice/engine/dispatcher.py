"""Gives queued executions to their machine: claims in the store first, start frame after the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from dormice.crash_points import CrashPoint, reached, reached_once_sent
from dormice.domain.execution import Execution, ExecutionState, Outcome, StdinMode
from dormice.domain.ids import execution_bytes
from dormice.domain.limits import Limits
from dormice.engine import outcomes
from dormice.engine.board import LiveMachine
from dormice.engine.channel import UNLIMITED
from dormice.engine.clock import Clock
from dormice.engine.feed import Feed
from dormice.engine.gateway import Gateway
from dormice.engine.observer import Observer
from dormice.engine.stdin import StdinFeeder
from dormice.protocol import node as wire
from dormice.store.interface import ExecutionStore, Progress


class Dispatcher:
    """One service for all machines; FIFO per machine, at most `running_per_machine` claims each."""

    def __init__(
        self,
        *,
        store: ExecutionStore,
        gateway: Gateway,
        feeder: StdinFeeder,
        feed: Feed,
        clock: Clock,
        limits: Limits,
        observer: Observer,
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._feeder = feeder
        self._feed = feed
        self._clock = clock
        self._observer = observer
        self._limits = limits
        self._dirty: dict[str, LiveMachine] = {}
        self._restart: dict[str, tuple[LiveMachine, Execution]] = {}
        self._work = asyncio.Event()

    def pump(self, live: LiveMachine) -> None:
        """Have the machine's queue looked at soon."""
        if live.queue:
            self._dirty[live.machine.id] = live
            self._work.set()

    def start(self, live: LiveMachine, execution: Execution, env: Mapping[str, str]) -> None:
        """Send the start frame of a claimed execution. If it is lost, `resume` sends it again."""
        if not live.attached or execution.boot_id is None:
            return
        program, *arguments = execution.command
        on_tty = execution.on_tty
        self._gateway.send(
            wire.StartExecution(
                machine_id=live.machine.id,
                boot_id=execution.boot_id.bytes,
                execution=execution_bytes(execution.id),
                timeout_ms=execution.timeout_ms or 0,
                kept_limit=UNLIMITED if on_tty else self._limits.kept_output_bytes,
                drain_grace_ms=self._limits.drain_grace_ms,
                cwd=execution.cwd,
                argv=[program.removeprefix("\0"), *arguments],
                env=dict(env),
                stdin_open=execution.stdin_mode is not StdinMode.EMPTY,
                tool=on_tty,
            )
        )
        reached_once_sent(CrashPoint.START_SENT)
        if execution.stdin_mode is not StdinMode.EMPTY:
            self._feeder.begin(live, execution)

    def start_soon(self, live: LiveMachine, claimed: Iterable[Execution]) -> None:
        """Have the start frames of claimed executions sent, with what only the store knows of them."""
        for execution in claimed:
            self._restart[execution.id] = (live, execution)
            self._work.set()

    def cancel(self, live: LiveMachine, execution: Execution) -> None:
        """Have the guest end a claimed execution. The request is in the store: `resume` repeats a lost frame."""
        if live.attached:
            self._gateway.send(
                wire.CancelExecution(live.machine.id, execution_bytes(execution.id), self._limits.cancel_grace_ms)
            )

    def resume(self, live: LiveMachine, known: set[str], before: Mapping[str, Execution]) -> None:
        """Bring claims and guest together after an attach: the guest says which executions it knows.

        What it does not know and had not started before it said so was lost on the way. The start frame names the boot
        and a guest starts an id once, so sending it again is safe. `before`: the claims when the guest said it.
        """
        for execution in list(live.claimed.values()):
            if execution.id not in known:
                self._restart[execution.id] = (live, before.get(execution.id, execution))
            elif execution.cancel_requested_at is not None:
                self.cancel(live, execution)
            if execution.id in known and execution.stdin_mode is not StdinMode.EMPTY:
                self._feeder.feed(live, execution)
        for execution_id in known - live.claimed.keys():
            self.disown(live, execution_id)
        self._work.set()
        self.pump(live)

    def disown(self, live: LiveMachine, execution_id: str) -> None:
        """Have the guest kill and forget an execution that has ended as far as the store knows."""
        execution = execution_bytes(execution_id)
        self._gateway.send(wire.CancelExecution(live.machine.id, execution, 0))
        self._gateway.send(wire.Forget(live.machine.id, execution))

    async def turn(self) -> None:
        """Wait for work, then do what there is. Raises StoreUnavailable: nothing is lost, the turn is taken again."""
        await self._work.wait()
        self._work.clear()
        try:
            await self._restart_all()
            await self._claim_all()
        finally:
            if self._restart or self._dirty:
                self._work.set()

    async def _restart_all(self) -> None:
        while self._restart:
            execution_id, (live, execution) = next(iter(self._restart.items()))
            del self._restart[execution_id]  # before the look at it: what comes meanwhile marks it again
            try:
                await self._start_again(live, execution)
            except Exception:
                self._restart.setdefault(execution_id, (live, execution))  # behind the others
                raise

    async def _claim_all(self) -> None:
        while self._dirty:
            machine_id, live = next(iter(self._dirty.items()))
            del self._dirty[machine_id]
            try:
                await self._claim_free_slots(live)
            except Exception:
                self._dirty.setdefault(machine_id, live)
                raise

    async def _claim_free_slots(self, live: LiveMachine) -> None:
        while (
            live.attached
            and live.awake
            and live.queue
            and (free := live.free_slots(self._limits.running_per_machine)) > 0
        ):
            batch = [live.queue.popitem(last=False)[1] for _ in range(min(free, len(live.queue)))]
            live.reserved += len(batch)
            try:
                claims = (self._claim(live, execution) for execution in batch)
                answers = await asyncio.gather(*claims, return_exceptions=True)
            finally:
                live.reserved -= len(batch)
            failures = [answer for answer in answers if isinstance(answer, BaseException)]
            if failures:
                for execution, answer in reversed(list(zip(batch, answers, strict=True))):
                    known = live.find(execution.id) is not None or execution.id in live.ended
                    if isinstance(answer, BaseException) and not known:
                        live.queue[execution.id] = execution
                        live.queue.move_to_end(execution.id, last=False)
                raise failures[0]

    async def _claim(self, live: LiveMachine, execution: Execution) -> None:
        boot_id = live.machine.boot_id
        if boot_id is None:
            raise RuntimeError(f"{live.machine.id} is attached without a boot")
        claimed = await self._store.claim(execution.id, boot_id, self._clock.now())
        if isinstance(claimed, Execution):
            reached(CrashPoint.CLAIM_COMMITTED)
            live.place(claimed)
            try:
                await self._start_stored(live, claimed)
            except Exception:
                self._restart[claimed.id] = (live, claimed)
                raise

    async def _start_again(self, live: LiveMachine, execution: Execution) -> None:
        current = live.claimed.get(execution.id)
        if current is None or not live.attached:
            return
        if current.boot_id != live.machine.boot_id:
            await self._requeue(live, current)
        elif current.state is ExecutionState.RUNNING is not execution.state:
            return  # it has started since
        elif current.state is ExecutionState.RUNNING:
            await self._end(live, current, outcomes.lost("its guest no longer knows it", self._clock.now()))
        elif current.cancel_requested_at is not None:
            await self._end(live, current, outcomes.cancelled(self._clock.now()))
        else:
            await self._start_stored(live, current)

    async def _requeue(self, live: LiveMachine, execution: Execution) -> None:
        """Undo a claim that was committed after its boot had ended: no start frame was ever sent for it."""
        if execution.boot_id is None:
            return
        queued = await self._store.progress(
            Progress(execution_id=execution.id, boot_id=execution.boot_id, now=self._clock.now(), requeue=True)
        )
        if isinstance(queued, Execution):
            live.place(queued)
            if queued.terminal:  # its end was asked for
                self._observer.finished(queued)
                self._feed.notify(queued.id)
                return
            if queued.id in live.queue:  # it may have been cancelled meanwhile
                live.queue.move_to_end(queued.id, last=False)
            self.pump(live)

    async def _start_stored(self, live: LiveMachine, execution: Execution) -> None:
        env = await self._store.environment(execution) if execution.env_keys else {}
        current = live.claimed.get(execution.id)
        if current is None:
            return
        if current.cancel_requested_at is not None:
            self.cancel(live, current)  # before the start frame it leaves a tombstone: REFUSED ends the execution
        self.start(live, current, env)

    async def _end(self, live: LiveMachine, execution: Execution, outcome: Outcome) -> None:
        if execution.boot_id is None:
            return
        ended = await self._store.progress(
            Progress(execution_id=execution.id, boot_id=execution.boot_id, now=self._clock.now(), outcome=outcome)
        )
        if isinstance(ended, Execution):
            live.place(ended)
            self._observer.finished(ended)
        else:
            live.lost_race(execution.id, ended)
        self._feed.notify(execution.id)
