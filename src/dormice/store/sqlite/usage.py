"""What machines have used, hour by hour, and the sizes of their disks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import apsw

from dormice.domain.execution import Micros
from dormice.domain.machine import Machine, Phase
from dormice.store.sqlite import statements
from dormice.store.sqlite.reader import Reader
from dormice.store.sqlite.writer import Writer
from dormice.store.usage import BootUse, ComputeUse, StorageSpan

_SQL = statements.load("usage.sql")

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
PIECE_ROWS = 400


class SqliteUsage:
    """UsageStore and AutoresizingStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def count(self, uses: Sequence[BootUse]) -> None:
        await self._writer.run(partial(_count, uses=uses), short=len(uses) == 1)

    async def compute(
        self, organization_id: str, *, start: Micros, end: Micros, machine_id: str | None, by_day: bool, limit: int
    ) -> list[ComputeUse]:
        query = partial(
            _compute,
            organization_id=organization_id,
            start=start,
            end=end,
            machine_id=machine_id,
            width=DAY_US if by_day else HOUR_US,
            limit=limit,
        )
        return await self._reader.scan(query)

    async def storage(
        self, organization_id: str, *, start: Micros, end: Micros, machine_id: str | None, limit: int
    ) -> list[StorageSpan]:
        values = (organization_id, start, end, machine_id, limit)
        rows = await self._reader.scan(lambda db: db.execute(_SQL["spans"], values).fetchall())
        return [_span(row) for row in rows]

    async def forget(self, before: Micros) -> int:
        return await self._writer.run(partial(_forget, before=before))

    async def policy(self, organization_id: str) -> bool:
        said: object = self._reader.point(lambda db: db.execute(_SQL["policy"], (organization_id,)).get)
        return said != 0

    async def set_policy(self, organization_id: str, *, enabled: bool) -> None:
        values = (organization_id, int(enabled))
        await self._writer.run(lambda db: db.execute(_SQL["set_policy"], values) and None, short=True)


def storage_changed(db: apsw.Connection, machine: Machine, now: Micros) -> None:
    """Begin a span for the size that the machine's disk has from now on; none once it is destroyed."""
    db.execute(_SQL["close_span"], (machine.organization_id, machine.id, now))
    if machine.phase is not Phase.DESTROYED:
        db.execute(_SQL["open_span"], (machine.organization_id, machine.id, now, machine.storage_gib))


def _count(db: apsw.Connection, uses: Sequence[BootUse]) -> None:
    for use in uses:
        row: Any = db.execute(_SQL["counter"], (use.machine,)).fetchone()
        awake, cpu = (row[1], row[2]) if row is not None and row[0] == use.boot_id.bytes else (0, 0)
        if use.awake_us <= awake:
            continue
        for hour, end, awake_us, cpu_us in _spread(use.at, use.awake_us - awake, max(0, use.cpu_us - cpu)):
            values = (use.organization_id, hour, use.machine_id, *use.size, awake_us, cpu_us, end)
            db.execute(_SQL["add"], values)
        db.execute(_SQL["set_counter"], (use.machine, use.boot_id.bytes, use.awake_us, max(cpu, use.cpu_us)))


def _spread(end: Micros, awake_us: int, cpu_us: int) -> Iterator[tuple[Micros, Micros, int, int]]:
    """Yield for each hour that the time before `end` touches: its start, where the time ends in it, and its parts of both."""
    at, cpu_told = end - awake_us, 0
    while at < end:
        hour = at - at % HOUR_US
        until = min(end, hour + HOUR_US)
        cpu_until = cpu_us * (until - end + awake_us) // awake_us  # of the whole, so that the parts add up
        yield hour, until, until - at, cpu_until - cpu_told
        at, cpu_told = until, cpu_until


def _compute(
    db: apsw.Connection,
    organization_id: str,
    start: Micros,
    end: Micros,
    machine_id: str | None,
    width: int,
    limit: int,
) -> list[ComputeUse]:
    found: dict[tuple[Any, ...], ComputeUse] = {}
    for row in db.execute(_SQL["hours"], (organization_id, start, end, machine_id)):
        hour, machine, *size, awake_us, cpu_us, windows, last = row
        key = (hour - hour % width, machine, *size)
        before = found.get(key)
        if before is None and len(found) == limit:
            break
        found[key] = ComputeUse(
            start=key[0],
            machine_id=machine,
            vcpu=size[0],
            memory_mib=size[1],
            storage_gib=size[2],
            awake_us=awake_us + (before.awake_us if before else 0),
            cpu_us=cpu_us + (before.cpu_us if before else 0),
            windows=windows + (before.windows if before else 0),
            last_window_end=max(last, before.last_window_end) if before else last,
        )
    return list(found.values())


def _span(row: tuple[Any, ...]) -> StorageSpan:
    return StorageSpan(machine_id=row[0], since=row[1], until=row[2], storage_gib=row[3])


def _forget(db: apsw.Connection, before: Micros) -> int:
    db.execute(_SQL["forget_hours"], (before - HOUR_US, PIECE_ROWS))
    hours = db.changes()
    db.execute(_SQL["forget_spans"], (before, PIECE_ROWS))
    return hours + db.changes()
