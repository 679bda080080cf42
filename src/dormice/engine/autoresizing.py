"""More memory for machines that are short of it, where their owners allow it. It is never taken away again by itself."""

from __future__ import annotations

import logging
from uuid import UUID

from dormice.domain.limits import Limits
from dormice.domain.machine import Phase, ResizeState
from dormice.engine.board import LiveMachine
from dormice.engine.lifecycle import Lifecycle
from dormice.engine.orders import Caller
from dormice.engine.tasks import Tasks
from dormice.protocol import node as wire
from dormice.store.usage import AutoresizingStore

log = logging.getLogger(__name__)

GRAIN_MIB = 64


class Autoresizing:
    """Decides what a machine gets that its node says is short, and keeps what organizations allow."""

    def __init__(self, *, store: AutoresizingStore, lifecycle: Lifecycle, tasks: Tasks, limits: Limits) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._tasks = tasks
        self._limits = limits

    async def policy(self, caller: Caller) -> bool:
        """Whether machines of the caller's organization may be given more memory. Raises StoreUnavailable."""
        return await self._store.policy(caller.organization_id)

    async def set_policy(self, caller: Caller, *, enabled: bool) -> bool:
        """Allow or forbid it from now on; what machines have been given they keep. Raises StoreUnavailable."""
        await self._tasks.finish(self._store.set_policy(caller.organization_id, enabled=enabled))
        return enabled

    async def short(self, live: LiveMachine, message: wire.MachineShort, host_mib: int) -> None:
        """Take the word that a machine is short, or no longer; its lock is held. A word about another boot or another size is an old one."""
        machine = live.machine
        if not message.short:
            if machine.resize_state is ResizeState.PENDING_CAPACITY:
                await self._lifecycle.note_capacity(live, ResizeState.STABLE)
            return
        if not machine.autoresizing or machine.phase is not Phase.RUNNING or machine.unapplied_from_mib is not None:
            return
        if UUID(bytes=message.boot_id) != machine.boot_id or message.memory_mib != machine.memory_mib:
            return
        target = next_memory_mib(machine.memory_mib, self._limits, host_mib)
        if target <= machine.memory_mib or not await self._store.policy(machine.organization_id):
            return
        fields = {"machine_id": machine.id}
        if target - machine.memory_mib > message.available_mib:
            log.warning("machine %s is short of memory, and so is the host", machine.id, extra=fields)
            await self._lifecycle.note_capacity(live, ResizeState.PENDING_CAPACITY)
            return
        log.info("machine %s is short of memory: %d MiB, from %d", machine.id, target, machine.memory_mib, extra=fields)
        await self._lifecycle.enlarge(live, target)


def next_memory_mib(memory_mib: int, limits: Limits, host_mib: int) -> int:
    """Return what a machine gets that has so much and is short: half as much again, within the limits; never less than it has."""
    step = min(-(-memory_mib // 2 // GRAIN_MIB) * GRAIN_MIB, limits.autoresizing_step_mib)
    most = min(limits.autoresizing_memory_mib, host_mib)
    return max(memory_mib, min(memory_mib + max(step, GRAIN_MIB), most))
