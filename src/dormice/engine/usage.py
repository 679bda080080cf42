"""What machines have used: heard from the node, counted in the store, and told to their owners."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from dormice.domain.errors import Invalid
from dormice.domain.execution import Micros
from dormice.domain.limits import Limits
from dormice.engine.board import Board, LiveMachine
from dormice.engine.clock import Clock
from dormice.engine.orders import Caller
from dormice.protocol import node as wire
from dormice.store.interface import StoreUnavailable
from dormice.store.usage import BootUse, ComputeUse, StorageSpan, UsageStore

COUNT_EVERY_SECONDS = 5.0
"""What has been heard meanwhile is counted in one commit; the last word of a boot at once."""
MOST_AT_ONCE = 256
DAY_US = 24 * 3_600_000_000


@dataclass(frozen=True, slots=True)
class Period:
    """start <= moment < end."""

    start: Micros
    end: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageUse:
    """What a machine's disk has taken up in one day that begins at `start`, or in the part of it that has passed."""

    machine_id: str
    start: Micros
    storage_gib: int
    """The largest that it was."""
    gib_us: int
    """GiB times microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What all machines of an organization have used."""

    awake_us: int
    cpu_us: int
    memory_mib_us: int
    storage_gib_us: int
    provisioned_gib: int
    """The disks that there are now."""


class Usage:
    """Counts, and answers. Raises Invalid, StoreUnavailable."""

    def __init__(self, *, store: UsageStore, board: Board, clock: Clock, limits: Limits) -> None:
        self._store = store
        self._board = board
        self._clock = clock
        self._limits = limits
        self._heard: dict[str, list[BootUse]] = {}
        """What is not counted yet, by machine: of each boot, as long as it had one size, the latest."""
        self._due = asyncio.Event()

    def report(self, live: LiveMachine, message: wire.MachineUsed) -> None:
        """Take what a boot has used so far. Of any boot but the present or last one it comes too late, and is left out."""
        machine, boot_id = live.machine, UUID(bytes=message.boot_id)
        if boot_id != machine.boot_id:
            return
        use = BootUse(
            organization_id=machine.organization_id,
            machine_id=machine.id,
            machine=machine.number,
            boot_id=boot_id,
            at=self._clock.now(),
            awake_us=message.awake_us,
            cpu_us=message.cpu_us,
            vcpu=message.vcpu,
            memory_mib=message.memory_mib,
            storage_gib=message.storage_gib,
        )
        heard = self._heard.setdefault(machine.id, [])
        if heard and (heard[-1].boot_id, heard[-1].size) == (boot_id, use.size):
            heard.pop()
        heard.append(use)
        if message.last:
            self._due.set()

    async def turn(self) -> None:
        """Wait until it is time, then count what was heard. Raises StoreUnavailable."""
        try:
            async with asyncio.timeout(COUNT_EVERY_SECONDS):
                await self._due.wait()
        except TimeoutError:
            pass
        self._due.clear()
        try:
            await self.count()
        except StoreUnavailable:
            self._due.set()
            raise

    async def count(self) -> None:
        """Count what was heard. Raises StoreUnavailable; then it is heard still."""
        while machines := list(self._heard)[:MOST_AT_ONCE]:
            uses = [use for machine_id in machines for use in self._heard[machine_id]]
            await self._store.count(uses)
            counted = set(map(id, uses))
            for machine_id in machines:
                later = [use for use in self._heard[machine_id] if id(use) not in counted]
                if later:
                    self._heard[machine_id] = later
                else:
                    del self._heard[machine_id]

    def now(self) -> Micros:
        """Return the present moment."""
        return self._clock.now()

    async def compute(
        self, caller: Caller, period: Period, *, machine_id: str | None, by_day: bool = False
    ) -> list[ComputeUse]:
        """Return what machines have used in each hour or day, ascending."""
        most = self._limits.usage_rows
        rows = await self._store.compute(
            caller.organization_id,
            start=period.start,
            end=period.end,
            machine_id=machine_id,
            by_day=by_day,
            limit=most + 1,
        )
        self._bound(len(rows))
        return rows

    async def storage(self, caller: Caller, period: Period, *, machine_id: str | None) -> list[StorageUse]:
        """Return what disks have taken up on each day, by machine and day."""
        spans, now = await self._spans(caller, period, machine_id)
        found: dict[tuple[str, Micros], StorageUse] = {}
        for span in spans:
            for day, took_us in _days(span, period, now):
                before = found.get((span.machine_id, day))
                found[span.machine_id, day] = StorageUse(
                    machine_id=span.machine_id,
                    start=day,
                    storage_gib=max(span.storage_gib, before.storage_gib if before else 0),
                    gib_us=span.storage_gib * took_us + (before.gib_us if before else 0),
                )
                self._bound(len(found))
        return list(found.values())

    async def totals(self, caller: Caller, start: Micros) -> Totals:
        """Return what all machines together have used since then."""
        period = Period(start, max(start, self._clock.now()))
        compute = await self.compute(caller, period, machine_id=None, by_day=True)
        spans, now = await self._spans(caller, period, None)
        live = [one.machine for one in self._board if one.machine.organization_id == caller.organization_id]
        return Totals(
            awake_us=sum(row.awake_us for row in compute),
            cpu_us=sum(row.cpu_us for row in compute),
            memory_mib_us=sum(row.awake_us * row.memory_mib for row in compute),
            storage_gib_us=sum(span.storage_gib * took for span in spans for _, took in _days(span, period, now)),
            provisioned_gib=sum(machine.storage_gib for machine in live),
        )

    async def _spans(self, caller: Caller, period: Period, machine_id: str | None) -> tuple[list[StorageSpan], Micros]:
        most = self._limits.usage_rows
        spans = await self._store.storage(
            caller.organization_id, start=period.start, end=period.end, machine_id=machine_id, limit=most + 1
        )
        self._bound(len(spans))
        return spans, self._clock.now()

    def _bound(self, rows: int) -> None:
        if rows > self._limits.usage_rows:
            raise Invalid(
                f"the answer would have more than {self._limits.usage_rows} rows (usage_rows): ask for a shorter period, "
                "for granularity=day, or for one machine_id",
                location="query.period_start",
            )


def _days(span: StorageSpan, period: Period, now: Micros) -> Iterator[tuple[Micros, int]]:
    """Yield each day on which the span was in the period, and for how many microseconds."""
    at, end = max(span.since, period.start), min(span.until or now, period.end, now)
    while at < end:
        day = at - at % DAY_US
        until = min(end, day + DAY_US)
        yield day, until - at
        at = until
