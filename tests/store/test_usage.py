"""What machines have used is counted once, in the hours that it belongs to, and kept longer than the machines."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import apsw

from dormice.domain.machine import MachineEvent
from dormice.store.interface import MachineChange
from dormice.store.usage import BootUse, ComputeUse, StorageSpan
from tests.store.conftest import open_sqlite
from tests.store.world import World

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
MIDNIGHT = 20_600 * DAY
END_OF_TIME = 1 << 62
BOOT = UUID(int=7)


def use(world: World, at: int, awake: int, cpu: int, **more: Any) -> BootUse:
    """What a boot has used by `at`; the figures are seconds."""
    fields: dict[str, Any] = {"boot_id": BOOT, "vcpu": 1.0, "memory_mib": 512, "storage_gib": 4, **more}
    return BootUse(
        organization_id=world.organization,
        machine_id=world.machine.id,
        machine=world.machine.number,
        at=at,
        awake_us=awake * SECOND,
        cpu_us=cpu * SECOND,
        **fields,
    )


async def used(world: World, *, by_day: bool = False, machine_id: str | None = None) -> list[ComputeUse]:
    return await world.store.usage.compute(
        world.organization, start=0, end=END_OF_TIME, machine_id=machine_id, by_day=by_day, limit=100
    )


def seconds(rows: list[ComputeUse]) -> list[tuple[int, int, int]]:
    """Hours since midnight, seconds awake, seconds of processors."""
    return [((row.start - MIDNIGHT) // HOUR, row.awake_us // SECOND, row.cpu_us // SECOND) for row in rows]


async def test_a_sum_that_is_told_twice_counts_once(world: World) -> None:
    at = MIDNIGHT + 100 * SECOND
    for awake, cpu in ((10, 3), (10, 3), (20, 4), (20, 4), (15, 2)):
        await world.store.usage.count([use(world, at, awake, cpu)])
    assert seconds(await used(world)) == [(0, 20, 4)]
    assert (await used(world))[0].windows == 2


async def test_another_boot_is_counted_from_its_start(world: World) -> None:
    at = MIDNIGHT + 100 * SECOND
    reports = [use(world, at, 10, 3), use(world, at + 5, 4, 2, boot_id=uuid4())]
    await world.store.usage.count(reports)
    assert seconds(await used(world)) == [(0, 14, 5)]


async def test_what_an_hour_has_of_a_long_time_is_exact(world: World) -> None:
    await world.store.usage.count([use(world, MIDNIGHT + 2 * HOUR + 600 * SECOND, 4800, 1600)])
    assert seconds(await used(world)) == [(0, 600, 200), (1, 3600, 1200), (2, 600, 200)]
    [day] = await used(world, by_day=True)
    assert (day.start, day.awake_us, day.cpu_us) == (MIDNIGHT, 4800 * SECOND, 1600 * SECOND)
    assert (day.windows, day.last_window_end) == (3, MIDNIGHT + 2 * HOUR + 600 * SECOND)


async def test_each_size_has_a_row_of_its_own(world: World) -> None:
    at = MIDNIGHT + 100 * SECOND
    await world.store.usage.count([use(world, at, 10, 1), use(world, at + 10, 30, 2, memory_mib=768)])
    assert {(row.memory_mib, row.awake_us // SECOND) for row in await used(world)} == {(512, 10), (768, 20)}


async def test_others_see_nothing_of_it(world: World) -> None:
    await world.store.usage.count([use(world, MIDNIGHT, 10, 1)])
    other = await world.create_machine()
    assert await used(world, machine_id=other.id) == []
    assert await used(world, machine_id=world.machine.id) == await used(world)
    rows = await world.store.usage.compute("other", start=0, end=END_OF_TIME, machine_id=None, by_day=False, limit=9)
    assert rows == []
    assert await world.store.usage.storage("other", start=0, end=END_OF_TIME, machine_id=None, limit=9) == []


async def test_no_more_rows_are_read_than_asked_for(world: World) -> None:
    await world.store.usage.count([use(world, MIDNIGHT + 5 * HOUR, 18_000, 0)])
    rows = await world.store.usage.compute(
        world.organization, start=MIDNIGHT, end=MIDNIGHT + 4 * HOUR, machine_id=None, by_day=False, limit=3
    )
    assert [row.start for row in rows] == [MIDNIGHT, MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR]


async def test_a_disk_is_there_from_its_machines_start_to_its_end_in_each_of_its_sizes(world: World) -> None:
    created = world.machine.created_at
    grown, gone = created + HOUR, created + 2 * HOUR

    async def advance(event: MachineEvent | None, change: MachineChange, now: int) -> None:
        moved = await world.store.machines.advance(world.machine.id, world.machine.revision, event, change, now)
        world.machine = moved  # type: ignore[assignment]

    await advance(None, MachineChange(storage_gib=9), grown)
    await advance(MachineEvent.DESTROY, MachineChange(), grown + 1)
    await advance(MachineEvent.DESTROYED, MachineChange(), gone)

    async def spans(start: int, end: int) -> list[StorageSpan]:
        return await world.store.usage.storage(world.organization, start=start, end=end, machine_id=None, limit=9)

    small = StorageSpan(machine_id=world.machine.id, since=created, until=grown, storage_gib=4)
    large = StorageSpan(machine_id=world.machine.id, since=grown, until=gone, storage_gib=9)
    assert await spans(0, END_OF_TIME) == [small, large]
    assert await spans(created + 1, created + 2) == [small]
    assert await spans(gone, END_OF_TIME) == []


async def test_what_is_old_is_forgotten_and_no_more(world: World) -> None:
    await world.store.usage.count([use(world, MIDNIGHT + 3 * HOUR, 10_800, 0)])
    assert await world.store.usage.forget(MIDNIGHT + 2 * HOUR) == 1
    assert seconds(await used(world)) == [(1, 3600, 0), (2, 3600, 0)]
    assert await world.store.usage.forget(MIDNIGHT + 2 * HOUR) == 0
    spans = await world.store.usage.storage(world.organization, start=0, end=END_OF_TIME, machine_id=None, limit=9)
    assert [span.until for span in spans] == [None]


async def test_a_machine_that_is_gone_keeps_its_usage_and_takes_no_more(world: World) -> None:
    missing = BootUse(
        organization_id=world.organization,
        machine_id="dm-gone",
        machine=world.machine.number + 1,
        boot_id=BOOT,
        at=MIDNIGHT,
        awake_us=SECOND,
        cpu_us=0,
        vcpu=1.0,
        memory_mib=1,
        storage_gib=1,
    )
    await world.store.usage.count([missing])
    assert [row.machine_id for row in await used(world)] == ["dm-gone"]


async def test_organizations_say_whether_machines_may_be_given_memory(world: World) -> None:
    policies = world.store.autoresizing
    assert await policies.policy(world.organization)
    for enabled in (False, True, False):
        await policies.set_policy(world.organization, enabled=enabled)
        assert await policies.policy(world.organization) is enabled


async def test_machines_of_an_earlier_release_have_their_disks_counted_from_their_start(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path)
    world = await World.made(store)
    await store.close()
    with closing(apsw.Connection(str(tmp_path / "dormice.sqlite3"))) as old:
        old.execute("DROP VIEW machine_records; DROP TABLE machine_memory; DROP TABLE storage_spans; DROP TABLE usage")
    for _ in range(2):
        store = open_sqlite(tmp_path)
        spans = await store.usage.storage(world.organization, start=0, end=END_OF_TIME, machine_id=None, limit=9)
        assert [(span.since, span.storage_gib) for span in spans] == [(world.machine.created_at, 4)]
        assert await store.machines.get(world.organization, world.machine.id) == world.machine
        await store.close()
