"""Moves machines through their phases: what callers want, what the node reports, and what follows for executions.

Every method that changes a machine runs under its lock, so decisions about one machine are made one after another.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from uuid import UUID

from dormice.crash_points import CrashPoint, reached, reached_once_sent
from dormice.domain.errors import Conflict, Unavailable
from dormice.domain.execution import Execution, Outcome
from dormice.domain.limits import Limits
from dormice.domain.machine import GOING, DesiredState, Machine, MachineEvent, Phase, ResizeState
from dormice.engine import outcomes
from dormice.engine.board import Board, LiveMachine
from dormice.engine.clock import Clock, new_boot_id
from dormice.engine.feed import Feed
from dormice.engine.gateway import Gateway
from dormice.engine.idempotency import reused
from dormice.engine.observer import Observer
from dormice.engine.orders import MachinePatch
from dormice.protocol import node as wire
from dormice.store.interface import (
    ExecutionStore,
    IdempotencyClaim,
    KeyReused,
    LostRace,
    MachineChange,
    MachineStore,
    Replayed,
)

STEADY = "DesiredStateReached"
_STARTABLE = frozenset({Phase.ACCEPTED, Phase.PLACEMENT_PENDING, Phase.SLEEPING, Phase.FAILED})
_UNSTARTED = frozenset({Phase.ACCEPTED, Phase.PLACEMENT_PENDING})


class AlreadyDone(Exception):
    """The request is an old one, sent again: whatever it asked for was done then, and nothing follows from it now."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What a caller's change depends on: the revision that it saw, and its idempotency key."""

    revision: str | None
    claim: IdempotencyClaim | None


def illegal(machine: Machine, target: DesiredState | None = None) -> Conflict:
    """Return the error for a change that the machine's phase does not allow."""
    observed = "error" if machine.phase is Phase.FAILED else machine.phase.value
    return Conflict(
        f"transition invalid for current state: the machine is {observed}",
        details={
            "current_desired_state": machine.desired_state.value,
            "current_observed_state": observed,
            **({"target_desired_state": target.value} if target else {}),
        },
    )


class Lifecycle:
    """The one writer of machine rows after their creation."""

    def __init__(
        self,
        *,
        machines: MachineStore,
        executions: ExecutionStore,
        board: Board,
        gateway: Gateway,
        feed: Feed,
        clock: Clock,
        limits: Limits,
        observer: Observer,
    ) -> None:
        self._machines = machines
        self._executions = executions
        self._board = board
        self._gateway = gateway
        self._feed = feed
        self._clock = clock
        self._observer = observer
        self._limits = limits

    # What callers want; the lock is held. Each raises AlreadyDone for a key that has done it before.

    async def wake(self, live: LiveMachine, guard: Guard) -> Machine:
        """Start the machine if it is not up or on its way."""
        machine = live.machine
        _match(machine, guard)
        if machine.phase in GOING:
            raise illegal(machine, DesiredState.RUNNING)
        if machine.phase is Phase.STOPPING:
            return await self._advance(live, None, MachineChange(desired_state=DesiredState.RUNNING), guard.claim)
        if machine.phase in _STARTABLE:
            return await self.start(live, guard.claim)
        return machine

    async def reboot(self, live: LiveMachine, guard: Guard, *, force: bool) -> Machine:
        """Stop the present boot and start the next; what waits goes on waiting. `force` asks nobody inside."""
        machine = live.machine
        if machine.phase not in (Phase.STARTING, Phase.RUNNING):
            return await self.wake(live, guard)
        _match(machine, guard)
        change = MachineChange(desired_state=DesiredState.RUNNING, reason="RebootRequested", retryable=False)
        machine = await self._close(live, MachineEvent.STOP, change, guard.claim)
        if machine.phase is Phase.STOPPING:
            self.send_stop(machine, grace_ms=0 if force else None)
        return machine

    async def start(self, live: LiveMachine, claim: IdempotencyClaim | None = None) -> Machine:
        """Begin a new boot, or note that there is no node to run it on."""
        if not self._gateway.connected:
            if live.machine.phase is Phase.PLACEMENT_PENDING:
                return live.machine
            change = MachineChange(desired_state=DesiredState.RUNNING, reason="NoReadyHosts", retryable=True)
            return await self._advance(live, MachineEvent.NO_NODE, change, claim)
        reached(CrashPoint.WAKE_DECIDED)
        boot_id = new_boot_id(self._clock)
        change = replace(
            self._applied(live.machine),  # it begins with the memory that it is to have
            desired_state=DesiredState.RUNNING,
            reason="Starting" if live.machine.copied else "CopyingDisk",
            retryable=False,
            last_error="",
            boot_id=boot_id,
        )
        machine = await self._advance(live, MachineEvent.START, change, claim)
        reached(CrashPoint.WAKE_COMMITTED)
        self.send_start(machine)
        reached_once_sent(CrashPoint.WAKE_SENT)
        return machine

    def send_start(self, machine: Machine) -> None:
        """Tell the node to start the present boot; it does so once."""
        if machine.boot_id is None:
            raise RuntimeError(f"{machine.id} is starting without a boot")
        self._gateway.send(
            wire.StartMachine(
                machine.id,
                machine.boot_id.bytes,
                machine.vcpu,
                machine.memory_mib,
                machine.storage_gib,
                machine.image,
                machine.egress.allow,
                "" if machine.copied else machine.origin or "",
                machine.organization_id,
            )
        )

    async def sleep(self, live: LiveMachine, guard: Guard) -> Machine:
        """Stop the machine; executions that wait for it or run on it end."""
        machine = live.machine
        _match(machine, guard)
        if machine.phase is Phase.FAILED or machine.phase in GOING:
            raise illegal(machine, DesiredState.SLEEPING)
        if machine.phase is Phase.SLEEPING:
            return machine
        if machine.phase is Phase.STOPPING:
            if machine.desired_state is DesiredState.SLEEPING:
                return machine
            return await self._advance(live, None, MachineChange(desired_state=DesiredState.SLEEPING), guard.claim)
        change = MachineChange(desired_state=DesiredState.SLEEPING, reason="SleepRequested", retryable=False)
        event = MachineEvent.STOPPED if machine.phase in _UNSTARTED else MachineEvent.STOP
        machine = await self._close(live, event, change, guard.claim)
        reached(CrashPoint.SLEEP_COMMITTED)
        if machine.phase is Phase.STOPPING:
            self.send_stop(machine)  # at once: what is committed happens, whatever becomes of this request
        await self._end_waiting(live, outcomes.interrupted("its machine was put to sleep", self._clock.now()))
        return machine

    async def doze(self, live: LiveMachine, reason: str) -> Machine:
        """Put an idle machine to sleep. The caller has seen, under the lock, that nothing is open."""
        change = MachineChange(desired_state=DesiredState.SLEEPING, reason=reason, retryable=False)
        machine = await self._close(live, MachineEvent.STOP, change)
        reached(CrashPoint.DOZE_COMMITTED)
        self.send_stop(machine)
        return machine

    async def _close(
        self, live: LiveMachine, event: MachineEvent, change: MachineChange, claim: IdempotencyClaim | None = None
    ) -> Machine:
        live.closing = True
        try:
            return await self._advance(live, event, change, claim)
        finally:
            live.closing = False

    def send_stop(self, machine: Machine, *, boot_id: UUID | None = None, grace_ms: int | None = None) -> None:
        """Tell the node to stop a boot of the machine, by default the present one."""
        boot = boot_id or machine.boot_id
        if boot is not None:
            grace = self._limits.sleep_grace_ms if grace_ms is None else grace_ms
            self._gateway.send(wire.StopMachine(machine.id, boot.bytes, grace))

    async def destroy(self, live: LiveMachine, guard: Guard) -> Machine:
        """Kill the machine and delete its disk."""
        machine = live.machine
        _match(machine, guard)
        if machine.phase is Phase.DESTROYED:  # by an earlier request, while this one waited for its turn
            raise AlreadyDone
        if machine.phase is not Phase.DESTROYING:
            if self._board.copies_of(machine.id):
                raise Conflict(
                    "the machine's disk is being copied for a fork: wait until the fork runs", retryable=True
                )
            change = MachineChange(desired_state=DesiredState.DESTROYED, reason="DeleteRequested", retryable=False)
            machine = await self._advance(live, MachineEvent.DESTROY, change, guard.claim)
            reached(CrashPoint.DESTROY_COMMITTED)
        live.attached = False
        self.send_destroy(machine)
        return machine

    def send_destroy(self, machine: Machine) -> None:
        """Tell the node to remove whatever there is of the machine."""
        self._gateway.send(wire.DestroyMachine(machine.id))

    async def resize(self, live: LiveMachine, patch: MachinePatch, guard: Guard) -> Machine:
        """Change what the machine is promised."""
        machine = live.machine
        _match(machine, guard)
        if machine.phase in GOING:
            raise illegal(machine)
        if patch == MachinePatch():
            return machine
        resized = machine.assigned_mib if patch.memory_mib not in (None, machine.memory_mib) else None
        change = MachineChange(
            vcpu=patch.vcpu,
            memory_mib=patch.memory_mib,
            storage_gib=patch.storage_gib,
            autosleep_seconds=patch.autosleep_seconds,
            egress=patch.egress,
            autoresizing=patch.autoresizing,
            unapplied_from_mib=resized,
            enlarging=None if patch.memory_mib is None else False,
        )
        machine = await self._advance(live, None, change, guard.claim, active=True)
        self.send_sizes(machine)
        return machine

    async def enlarge(self, live: LiveMachine, memory_mib: int) -> None:
        """Give a running machine that is short more memory. That it is raised does not count as use of the machine."""
        change = MachineChange(memory_mib=memory_mib, unapplied_from_mib=live.machine.memory_mib, enlarging=True)
        self.send_sizes(await self._advance(live, None, change))

    async def note_capacity(self, live: LiveMachine, state: ResizeState) -> None:
        """Note that a machine is short of memory while the host has none to give, or that this is over."""
        if live.machine.resize_state is not state:
            await self._note_memory(live, MachineChange(resize_state=state))

    def send_sizes(self, machine: Machine) -> None:
        """Tell the node what the machine is promised now; a stopped one is given it at its next start."""
        if machine.phase in (Phase.STARTING, Phase.RUNNING):
            sizes = (machine.vcpu, machine.memory_mib, machine.storage_gib)
            allow = machine.egress.allow
            self._gateway.send(wire.ResizeMachine(machine.id, machine.revision, *sizes, machine.image, allow))

    # What the node reports; the lock is held.

    async def up(self, live: LiveMachine, *, claim: bool) -> list[Execution]:
        """Take the guest's first answer: the machine runs, and executions that waited for it may start.

        With `claim`, which needs a guest that answers, return those that got a free slot: they are claimed for the present boot, and
        the caller has them started.
        """
        # Given to the store together, they share a commit.
        started, ready = await asyncio.gather(
            self._started(live), self._ready(live, claim=claim), return_exceptions=True
        )
        if isinstance(started, BaseException):
            raise started
        if isinstance(ready, BaseException):
            raise ready
        return ready

    async def _started(self, live: LiveMachine) -> None:
        if live.machine.phase is Phase.STARTING:
            change = MachineChange(reason=STEADY, retryable=False, copied=True)
            await self._advance(live, MachineEvent.STARTED, change, active=True)
            reached(CrashPoint.MACHINE_UP_COMMITTED)

    async def _ready(self, live: LiveMachine, *, claim: bool) -> list[Execution]:
        machine, free = live.machine, live.free_slots(self._limits.running_per_machine) - len(live.queue)
        slots = max(free, 0) if claim else 0
        live.reserved += slots
        try:
            ready = await self._executions.machine_ready(
                machine.id, self._clock.now(), boot_id=machine.boot_id, slots=slots
            )
        finally:
            live.reserved -= slots
        if ready:
            reached(CrashPoint.WAKE_CLAIMS_COMMITTED)
        for execution in ready:
            live.place(execution)
            self._feed.notify(execution.id)
        return [execution for execution in ready if execution.boot_id is not None]

    async def disk_copied(self, live: LiveMachine) -> None:
        """Record that the machine's disk is its own, and needs its origin no more."""
        if not live.machine.copied:
            reason = "Starting" if live.machine.phase is Phase.STARTING else None
            await self._advance(live, None, MachineChange(reason=reason, copied=True))

    async def start_failed(self, live: LiveMachine, code: str, message: str, *, retryable: bool) -> None:
        """Record why a boot did not come up; what waited for it fails."""
        if live.machine.phase is Phase.STARTING:
            change = MachineChange(reason="RuntimeWakeFailed", retryable=retryable, last_error=f"{code}: {message}")
            await self._advance(live, MachineEvent.START_FAILED, change)
        # A claim that was committed after its boot had ended is not of this boot, and waits for it all the same.
        await self._end_all(live, None, outcomes.wake_failed(code, message, self._clock.now()))

    async def down(self, live: LiveMachine, why: str, *, died: bool) -> None:
        """Record that the present boot is over. `died`: nobody asked for it, and its executions are lost."""
        now = self._clock.now()
        why = live.condemned or why
        if died:
            outcome = outcomes.lost(why, now)
            change = MachineChange(
                desired_state=DesiredState.SLEEPING, reason="MachineLost", retryable=True, last_error=why
            )
            event = MachineEvent.DIED
        else:
            outcome = outcomes.interrupted("ended because its machine was stopped", now)
            change, event = MachineChange(reason=STEADY, retryable=False, last_error=""), MachineEvent.STOPPED
        live.attached = False
        live.lose_channels(why or "it was stopped")
        if live.machine.boot_id is not None:
            await self._end_all(live, live.machine.boot_id, outcome)
        reached(CrashPoint.BOOT_ENDED)
        change = replace(change, desired_state=DesiredState.RUNNING if live.open_executions else change.desired_state)
        await self._advance(live, event, change)
        live.condemned = ""
        reached(CrashPoint.MACHINE_DOWN_COMMITTED)
        if live.machine.desired_state is DesiredState.RUNNING:
            await self.start(live)

    async def gone(self, live: LiveMachine) -> None:
        """Record that nothing of the machine is left."""
        live.lose_channels("it was deleted")
        outcome = outcomes.interrupted("ended because its machine was deleted", self._clock.now())
        await self._end_all(live, None, outcome)
        await self._advance(live, MachineEvent.DESTROYED, MachineChange(reason=STEADY, last_error=""))
        self._board.remove(live.machine.id)

    async def resized(self, live: LiveMachine, request: int, code: str, message: str) -> None:
        """Note that new sizes are applied, or could not be; `request` is the revision that they were asked for with."""
        if code:
            change = MachineChange(
                reason="ResizeFailed", last_error=f"{code}: {message}", resize_state=ResizeState.ERROR
            )
            await self._advance(live, None, change)
        elif live.machine.unapplied_from_mib is not None and request == live.machine.revision:
            await self._note_memory(live, self._applied(live.machine))

    def _applied(self, machine: Machine) -> MachineChange:
        at = self._clock.now() if machine.enlarging else None
        return MachineChange(unapplied_from_mib=0, enlarging=False, autoresized_at=at, resize_state=ResizeState.STABLE)

    # How rows are written.

    async def _advance(
        self,
        live: LiveMachine,
        event: MachineEvent | None,
        change: MachineChange,
        claim: IdempotencyClaim | None = None,
        *,
        active: bool = False,
    ) -> Machine:
        """Write the row. `active`: autosleep counts from now on."""
        machine, activity = live.machine, self._clock.steady() if active else live.last_activity_at
        change = replace(change, last_activity_at=activity)
        moved = await self._machines.advance(machine.id, machine.revision, event, change, self._clock.now(), claim)
        match moved:
            case Machine():
                live.machine = moved
                live.last_activity_at = max(live.last_activity_at, activity)
                self._feed.notify(machine.id)
                self._observer.machine_moved(machine, moved)
                return moved
            case Replayed():
                raise AlreadyDone
            case KeyReused():
                raise reused(moved)
            case LostRace():
                raise _overtaken(live, moved)

    async def _note_memory(self, live: LiveMachine, change: MachineChange) -> None:
        noted = await self._machines.note_memory(live.machine.id, live.machine.revision, change)
        if isinstance(noted, LostRace):
            raise _overtaken(live, noted)
        live.machine = noted
        self._feed.notify(noted.id)

    async def _end_waiting(self, live: LiveMachine, outcome: Outcome) -> None:
        for execution in [*live.queue.values(), *live.waking.values()]:
            ended = await self._executions.end_unstarted(execution.id, outcome)
            if isinstance(ended, Execution):
                self._ended(live, ended)

    async def _end_all(self, live: LiveMachine, boot_id: UUID | None, outcome: Outcome) -> None:
        for ended in await self._executions.end_boot(live.machine.id, boot_id, outcome):
            self._ended(live, ended)

    def _ended(self, live: LiveMachine, execution: Execution) -> None:
        live.drop(execution.id)
        live.last_activity_at = self._clock.steady()
        self._feed.notify(execution.id)
        self._observer.finished(execution)


def _overtaken(live: LiveMachine, race: LostRace) -> Unavailable:
    """Return the error for what only a second engine on the same store can do: the lock makes us the only writer."""
    if isinstance(race.current, Machine):
        live.machine = race.current
    return Unavailable("another server changed the machine: is the store shared?")


def _match(machine: Machine, guard: Guard) -> None:
    if guard.revision not in (None, "*", str(machine.revision)):
        raise Conflict(
            "revision mismatch: the machine has changed; read it again",
            code="REVISION_MISMATCH",
            retryable=True,
            details={"expected_revision": str(machine.revision), "provided_revision": str(guard.revision)[:64]},
        )
