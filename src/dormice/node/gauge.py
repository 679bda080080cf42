"""What the node tells of its machines unasked: what they have used, and that one is short of memory.

Looking costs some 60 microseconds for a machine that is not short. A machine is short when what its processes hold and cannot be taken
from them (pages of files can) comes near its limit, or when the OOM killer has struck in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from dormice.node.runtime import Memory, Meter, Running, Runtime
from dormice.node.uncounted import HostMemory
from dormice.protocol import node as wire

LOOK_EVERY_SECONDS = 1.0
TELL_EVERY_SECONDS = 10.0
"""How often what a machine has used is told, and again that it is short."""
SHORT_SHARE = 0.85


@dataclass(slots=True)
class _Boot:
    """What was told of one boot, and when, by the steady clock; what was seen of it."""

    boot_id: bytes
    used_at: float = 0.0
    short_at: float = 0.0
    limit: int = 0
    """That it had when it was told to be short; 0 when it is not."""
    oom_kills: int = 0


class Gauge:
    """Makes the messages. It may be made anew at any time: what is told are sums since the start of a boot."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._boots: dict[str, _Boot] = {}

    def look(self, running: Running) -> list[wire.MachineUsed | wire.MachineShort]:
        """Return what is to be told now of a machine that is not just being started or ended."""
        meter = self._runtime.meter(running.machine_id)
        if meter is None:
            return []
        try:
            boot, now = self._boot(running), time.monotonic()
            told: list[wire.MachineUsed | wire.MachineShort] = []
            if now - boot.used_at >= TELL_EVERY_SECONDS:
                boot.used_at = now
                told.append(_used(running, meter, last=False))
            told.extend(self._short(running, boot, meter, now))
        except OSError:  # cleared away meanwhile
            return []
        return told

    def before_resize(self, running: Running) -> list[wire.MachineUsed]:
        """Return what a machine has used while it has the size that it has now."""
        return self._use(running, last=False)

    def last(self, running: Running) -> list[wire.MachineUsed]:
        """Return what is to be told of a boot before it is cleared away."""
        self._boots.pop(running.machine_id, None)
        return self._use(running, last=True)

    def _use(self, running: Running, *, last: bool) -> list[wire.MachineUsed]:
        meter = self._runtime.meter(running.machine_id)
        try:
            return [] if meter is None else [_used(running, meter, last=last)]
        except OSError:  # cleared away
            return []

    def _boot(self, running: Running) -> _Boot:
        boot = self._boots.get(running.machine_id)
        if boot is None or boot.boot_id != running.boot_id.bytes:
            boot = _Boot(running.boot_id.bytes, oom_kills=self._runtime.oom_kills(running.machine_id))
            self._boots[running.machine_id] = boot
        return boot

    def _short(self, running: Running, boot: _Boot, meter: Meter, now: float) -> Iterator[wire.MachineShort]:
        memory = self._memory(running, boot, meter)
        if memory is None and boot.limit:
            boot.limit = 0
            yield wire.MachineShort(running.machine_id, boot.boot_id, False, 0, 0)
        elif memory is not None and (memory.limit != boot.limit or now - boot.short_at >= TELL_EVERY_SECONDS):
            boot.short_at, boot.limit = now, memory.limit
            mib = memory.limit >> 20
            yield wire.MachineShort(running.machine_id, boot.boot_id, True, mib, _available_mib())

    def _memory(self, running: Running, boot: _Boot, meter: Meter) -> Memory | None:
        """The machine's memory if it is short of it."""
        before, boot.oom_kills = boot.oom_kills, self._runtime.oom_kills(running.machine_id)
        struck = boot.oom_kills > before
        memory = meter.memory(above=-1.0 if struck else SHORT_SHARE)
        if memory is None or struck:
            return memory
        return memory if memory.used - memory.reclaimable > memory.limit * SHORT_SHARE else None


def _used(running: Running, meter: Meter, *, last: bool) -> wire.MachineUsed:
    has, (awake_us, cpu_us) = meter.spec, meter.used()
    return wire.MachineUsed(
        running.machine_id,
        running.boot_id.bytes,
        awake_us,
        cpu_us,
        has.vcpu,
        has.memory_mib,
        has.storage_gib,
        last,
    )


def _available_mib() -> int:
    host = HostMemory()
    try:
        return max(0, host.headroom()) >> 20
    finally:
        host.close()
