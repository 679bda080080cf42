"""Machines as callers see them: create, read, resize, sleep, wake, destroy, watch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from dormice.crash_points import CrashPoint, reached
from dormice.domain.egress import PUBLIC, Egress
from dormice.domain.errors import Conflict, Invalid, NotFound
from dormice.domain.ids import canonical_machine_id
from dormice.domain.limits import Limits, MachineDefaults
from dormice.domain.machine import DesiredState, Machine, Phase
from dormice.engine.board import Board, LiveMachine
from dormice.engine.clock import Clock, new_machine_id
from dormice.engine.feed import Feed
from dormice.engine.idempotency import InFlight, reused
from dormice.engine.lifecycle import AlreadyDone, Guard, Lifecycle, illegal
from dormice.engine.orders import Caller, Idempotency, MachineOrder, MachinePatch
from dormice.engine.reconciler import Reconciler
from dormice.engine.snapshots import COPY_WAIT_MS, Snapshots
from dormice.engine.tasks import Tasks
from dormice.store.interface import (
    IdempotencyClaim,
    KeyReused,
    MachineStore,
    NewMachine,
    Replayed,
)

KEEP_ALIVE_SECONDS = 15.0
_SETTLED = {
    DesiredState.RUNNING: {Phase.RUNNING, Phase.FAILED, Phase.DESTROYED},
    DesiredState.SLEEPING: {Phase.SLEEPING, Phase.FAILED, Phase.DESTROYED},
    DesiredState.DESTROYED: {Phase.DESTROYED},
}


def settled(machine: Machine) -> bool:
    """Whether the machine is where it is wanted, or will not get there by itself."""
    return machine.phase in _SETTLED[machine.desired_state]


class Machines:
    """The machines of every organization. Raises the errors of domain/errors.py and StoreUnavailable."""

    def __init__(
        self,
        *,
        store: MachineStore,
        board: Board,
        lifecycle: Lifecycle,
        reconciler: Reconciler,
        snapshots: Snapshots,
        feed: Feed,
        in_flight: InFlight,
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
        defaults: MachineDefaults,
    ) -> None:
        self._store = store
        self._board = board
        self._lifecycle = lifecycle
        self._reconciler = reconciler
        self._snapshots = snapshots
        self._feed = feed
        self._in_flight = in_flight
        self._tasks = tasks
        self._clock = clock
        self._limits = limits
        self._defaults = defaults

    async def create(
        self, caller: Caller, order: MachineOrder, idempotency: Idempotency | None, *, wait_ms: int = 0
    ) -> Machine:
        """Record a machine and start it. One that begins as a copy of a snapshot is returned once it is copied, or after some time."""
        claim = await self._in_flight.claim(caller, idempotency)
        machine = await self._tasks.finish(self._create(caller, self._ordered(caller, order), claim))
        return await self._wait(await self._copied(machine, wait_ms), wait_ms)

    async def fork(
        self, caller: Caller, machine_id: str, order: MachineOrder, idempotency: Idempotency | None, *, wait_ms: int = 0
    ) -> Machine:
        """Record a machine whose disk is a copy of another one's present disk, and start it; what the order leaves out is as there.

        Returned once its disk is copied, or after some time.
        """
        source = await self.get(caller, machine_id)
        claim = await self._in_flight.claim(caller, idempotency)
        machine = await self._tasks.finish(self._create(caller, self._forked(caller, source, order), claim))
        return await self._wait(await self._copied(machine, wait_ms), wait_ms)

    @asynccontextmanager
    async def _ordered(self, caller: Caller, order: MachineOrder) -> AsyncIterator[NewMachine]:
        """What to record; its snapshot stays as long as this is open."""
        if order.snapshot is None:
            yield self._new(caller, order)
            return
        with self._snapshots.held(order.snapshot):
            snapshot = await self._snapshots.ready(caller, order.snapshot)
            if order.image is not None:
                raise Invalid("snapshot and image exclude each other: send one of them", location="body.image")
            _check_growth(order, snapshot.storage_gib, "the snapshot")
            storage_gib = order.storage_gib or max(self._defaults.storage_gib, snapshot.storage_gib)
            order = replace(order, storage_gib=storage_gib, image=snapshot.image)
            yield self._new(caller, order, origin=snapshot.id)

    @asynccontextmanager
    async def _forked(self, caller: Caller, source: Machine, order: MachineOrder) -> AsyncIterator[NewMachine]:
        """What to record; the machine that is copied is not destroyed as long as this is open."""
        live = self._board.owned(caller.organization_id, source.id)
        if live is None:
            raise illegal(source)
        async with live.lock:
            source = live.machine
            if source.phase is Phase.DESTROYING or source.boot_id is None or not source.copied:
                raise illegal(source)
            _check_growth(order, source.storage_gib, "the machine")
            order = MachineOrder(
                vcpu=source.vcpu if order.vcpu is None else order.vcpu,
                memory_mib=source.memory_mib if order.memory_mib is None else order.memory_mib,
                storage_gib=source.storage_gib if order.storage_gib is None else order.storage_gib,
                image=source.image,
                autosleep_seconds=(
                    source.autosleep_seconds if order.autosleep_seconds is None else order.autosleep_seconds
                ),
                egress=source.egress if order.egress is None else order.egress,
            )
            yield self._new(caller, order, origin=source.id)

    def _new(self, caller: Caller, order: MachineOrder, *, origin: str | None = None) -> NewMachine:
        defaults = self._defaults
        new = NewMachine(
            id=new_machine_id(self._clock),
            organization_id=caller.organization_id,
            vcpu=defaults.vcpu if order.vcpu is None else order.vcpu,
            memory_mib=defaults.memory_mib if order.memory_mib is None else order.memory_mib,
            storage_gib=defaults.storage_gib if order.storage_gib is None else order.storage_gib,
            image=defaults.image if order.image is None else order.image,
            autosleep_seconds=(
                defaults.autosleep_seconds if order.autosleep_seconds is None else order.autosleep_seconds
            ),
            egress=PUBLIC if order.egress is None else order.egress,
            origin=origin,
            now=self._clock.now(),
        )
        self._check_sizes(new.vcpu, new.memory_mib, new.storage_gib, new.autosleep_seconds)
        self._check_egress(new.egress)
        # A copied disk keeps the very files below it, whatever bears their name now.
        if origin is None and not self._reconciler.has_image(new.image):
            raise Invalid(f"no such image: {new.image!r}; `dormice image list` shows them", location="body.image")
        return new

    def _check_egress(self, egress: Egress) -> None:
        if egress != PUBLIC and not self._reconciler.isolates:
            words = "the node does not isolate machines (driver `process`): only the egress policy `public` can be kept"
            raise Invalid(words, location="body.egress")

    def _check_sizes(self, vcpu: float, memory_mib: int, storage_gib: int, autosleep_seconds: int) -> None:
        limits, (host_vcpus, host_memory, host_storage) = self._limits, self._reconciler.capacity
        _bounds("vcpu", vcpu, limits.vcpu_min, host_vcpus, "cores of the host")
        if vcpu % limits.vcpu_step:
            raise Invalid(f"vcpu goes in steps of {limits.vcpu_step}", location="body.vcpu")
        _bounds("memory_mib", memory_mib, limits.memory_mib_min, host_memory, "MiB of the host")
        most = min(limits.storage_gib_max, host_storage)
        _bounds("storage_gib", storage_gib, limits.storage_gib_min, most, "GiB of the host")
        _bounds("autosleep", autosleep_seconds, 0, limits.autosleep_seconds_max, "seconds; 0 or never turns it off")

    async def _create(
        self, caller: Caller, recording: AbstractAsyncContextManager[NewMachine], claim: IdempotencyClaim | None
    ) -> Machine:
        try:
            async with recording as new:
                if self._board.count(caller.organization_id) >= self._limits.machines_per_organization:
                    raise Conflict(
                        f"machine quota exceeded: {self._limits.machines_per_organization} machines per organization; "
                        "delete one first",
                        code="QUOTA_EXCEEDED",
                    )
                made = await self._store.create(new, claim)
                if isinstance(made, Machine):
                    reached(CrashPoint.MACHINE_COMMITTED)
                    self._reconciler.want_running(self._board.add(made, self._clock.steady()))
                    return made
        except (Conflict, NotFound):
            if (earlier := await self._in_flight.recall(claim)) is not None:
                return await self.get(caller, earlier)
            raise
        finally:
            self._in_flight.settle(claim)
        match made:
            case Replayed(resource_id=machine_id):
                return await self.get(caller, machine_id)
            case KeyReused():
                raise reused(made)

    async def _copied(self, machine: Machine, wait_ms: int) -> Machine:
        """Wait for the machine's disk: what becomes of its origin afterwards should not be in it."""
        return await self._until(_disk_decided, machine, max(wait_ms, COPY_WAIT_MS))

    async def get(self, caller: Caller, machine_id: str, *, wait_ms: int = 0) -> Machine:
        """Return a machine, also a destroyed one; with wait_ms, once it has settled. Raises NotFound."""
        machine_id = canonical_machine_id(machine_id) or ""
        live = self._board.owned(caller.organization_id, machine_id)
        machine = live.machine if live is not None else await self._store.get(caller.organization_id, machine_id)
        if machine is None:
            raise NotFound("no such machine")
        return await self._wait(machine, wait_ms)

    async def _wait(self, machine: Machine, wait_ms: int) -> Machine:
        return await self._until(settled, machine, wait_ms)

    async def _until(self, enough: Callable[[Machine], bool], machine: Machine, wait_ms: int) -> Machine:
        return await self._feed.until(
            machine.id, machine, wait_ms, clock=self._clock, reread=self._reread, enough=enough
        )

    async def _reread(self, machine: Machine) -> Machine:
        live = self._board.get(machine.id)
        if live is not None:
            return live.machine
        return await self._store.get(machine.organization_id, machine.id) or machine

    async def page(self, caller: Caller, *, before: int | None, limit: int) -> list[Machine]:
        """Return machines newest first, below the number `before`; destroyed ones are not listed."""
        return await self._store.page(caller.organization_id, before=before, limit=limit)

    async def changes(self, caller: Caller, machine_id: str) -> AsyncIterator[Machine | None]:
        """Yield the machine as it is, then at every change, until it has settled or the server stops; None every 15 s without change."""
        machine = await self.get(caller, machine_id)
        yield machine
        while not (settled(machine) or self._feed.closing):
            with self._feed.listen(machine.id) as hint:
                newer = await self._reread(machine)
                if newer.revision == machine.revision:
                    await hint.wait(KEEP_ALIVE_SECONDS)
                    newer = await self._reread(machine)
            if newer.revision == machine.revision:
                yield None
            else:
                machine = newer
                yield machine

    async def sleep(
        self,
        caller: Caller,
        machine_id: str,
        *,
        revision: str | None,
        idempotency: Idempotency | None,
        wait_ms: int = 0,
    ) -> Machine:
        """Stop the machine and keep its disk. What runs or waits ends `execution_runner_interrupted`."""
        return await self._act(caller, machine_id, self._lifecycle.sleep, revision, idempotency, wait_ms)

    async def wake(
        self,
        caller: Caller,
        machine_id: str,
        *,
        revision: str | None,
        idempotency: Idempotency | None,
        wait_ms: int = 0,
    ) -> Machine:
        """Start the machine's disk again. A running one is returned unchanged."""
        return await self._act(caller, machine_id, self._lifecycle.wake, revision, idempotency, wait_ms)

    async def reboot(
        self,
        caller: Caller,
        machine_id: str,
        *,
        force: bool,
        revision: str | None,
        idempotency: Idempotency | None,
        wait_ms: int = 0,
    ) -> Machine:
        """Stop the machine's processes and start its disk again. What runs ends `execution_runner_interrupted`."""
        action = partial(self._lifecycle.reboot, force=force)
        return await self._act(caller, machine_id, action, revision, idempotency, wait_ms)

    async def destroy(
        self,
        caller: Caller,
        machine_id: str,
        *,
        revision: str | None,
        idempotency: Idempotency | None,
        wait_ms: int = 0,
    ) -> Machine:
        """Kill the machine and delete its disk. A destroyed one is returned unchanged."""
        machine = await self.get(caller, machine_id)
        if machine.phase is Phase.DESTROYED:
            return machine
        return await self._act(caller, machine_id, self._lifecycle.destroy, revision, idempotency, wait_ms)

    async def patch(
        self,
        caller: Caller,
        machine_id: str,
        patch: MachinePatch,
        *,
        revision: str | None,
        idempotency: Idempotency | None,
    ) -> Machine:
        """Change sizes (live for a running machine; storage only grows) and autosleep."""

        async def resize(live: LiveMachine, guard: Guard) -> Machine:
            self._check_patch(live.machine, patch)
            return await self._lifecycle.resize(live, patch, guard)

        return await self._act(caller, machine_id, resize, revision, idempotency, 0)

    async def set_autoresizing(
        self, caller: Caller, machine_id: str, *, enabled: bool, idempotency: Idempotency | None
    ) -> Machine:
        """Say whether its memory may be raised when it is short. What holds already is no change."""

        async def switch(live: LiveMachine, guard: Guard) -> Machine:
            patch = MachinePatch() if live.machine.autoresizing == enabled else MachinePatch(autoresizing=enabled)
            return await self._lifecycle.resize(live, patch, guard)

        return await self._act(caller, machine_id, switch, None, idempotency, 0)

    def _check_patch(self, machine: Machine, patch: MachinePatch) -> None:
        self._check_egress(patch.egress or PUBLIC)
        self._check_sizes(
            machine.vcpu if patch.vcpu is None else patch.vcpu,
            machine.memory_mib if patch.memory_mib is None else patch.memory_mib,
            machine.storage_gib if patch.storage_gib is None else patch.storage_gib,
            machine.autosleep_seconds if patch.autosleep_seconds is None else patch.autosleep_seconds,
        )
        if patch.storage_gib is not None and patch.storage_gib < machine.storage_gib:
            raise Invalid(
                f"storage_gib can grow, not shrink: the machine has {machine.storage_gib}", location="body.storage_gib"
            )

    async def _act(
        self,
        caller: Caller,
        machine_id: str,
        action: Callable[[LiveMachine, Guard], Coroutine[Any, Any, Machine]],
        revision: str | None,
        idempotency: Idempotency | None,
        wait_ms: int,
    ) -> Machine:
        machine = await self.get(caller, machine_id)
        live = self._board.owned(caller.organization_id, machine.id)
        if live is None:
            raise illegal(machine)
        claim = await self._in_flight.claim(caller, idempotency)
        machine = await self._tasks.finish(self._settle(live, claim, action(live, Guard(revision, claim))))
        return await self._wait(machine, wait_ms)

    async def _settle(
        self, live: LiveMachine, claim: IdempotencyClaim | None, action: Coroutine[Any, Any, Machine]
    ) -> Machine:
        try:
            async with live.lock:
                return await action
        except AlreadyDone:
            return live.machine
        finally:
            self._in_flight.settle(claim)


def _disk_decided(machine: Machine) -> bool:
    return machine.copied or machine.phase not in (Phase.ACCEPTED, Phase.STARTING)


def _check_growth(order: MachineOrder, least: int, what: str) -> None:
    if order.storage_gib is not None and order.storage_gib < least:
        raise Invalid(f"storage_gib must be at least that of {what}, {least}", location="body.storage_gib")


_OF_THE_HOST = frozenset({"memory_mib", "storage_gib"})


def _bounds(field: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:
        words = f"must be between {low} and {high} {unit}"
        if value > high and field in _OF_THE_HOST:
            words += ": exceeds capacity"
        raise Invalid(f"{field} is {value}, {words}", location=f"body.{field}")
