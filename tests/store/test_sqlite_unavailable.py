"""SQLite: whatever the disk does, an answer is either durable or StoreUnavailable, and service resumes by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest

from dormice.domain.execution import Execution, ExecutionEvent, Stream
from dormice.store.interface import StoreUnavailable
from tests.store.conftest import open_sqlite
from tests.store.world import World, out, outcome


class Disk(apsw.VFS):
    """The real file system, which fails when told to."""

    def __init__(self) -> None:
        self.real = apsw.vfs_names()[0]
        self.write_error: type[apsw.Error] | None = None
        self.sync_error: type[apsw.Error] | None = None
        self.room: int | None = None
        """Bytes that may still be written; None = any."""
        super().__init__("faulty-disk", self.real, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return File(self, name, flags)

    def repair(self) -> None:
        self.write_error = self.sync_error = self.room = None


class File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self.disk = disk
        super().__init__(disk.real, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self.disk.write_error is not None:
            raise self.disk.write_error
        if self.disk.room is not None:
            self.disk.room -= len(data)
            if self.disk.room < 0:
                raise apsw.FullError
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self.disk.sync_error is not None:
            raise self.disk.sync_error
        super().xSync(flags)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    apsw.set_default_vfs(disk.real)
    disk.unregister()


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("write_error", apsw.FullError, "full"),
        ("write_error", apsw.IOError, "failed"),
        ("sync_error", apsw.IOError, "failed"),
    ],
)
async def test_a_failing_disk_is_said_and_service_resumes_when_it_works_again(
    tmp_path: Path, disk: Disk, fault: str, error: type[apsw.Error], says: str
) -> None:
    store = open_sqlite(tmp_path)
    world = await World.made(store)
    running = await world.running()
    setattr(disk, fault, error)
    with pytest.raises(StoreUnavailable, match=says):
        await store.check()
    attempts = [world.create() for _ in range(5)] + [world.report(running, chunks=[out(0, b"x" * 100_000)])]
    for answer in await asyncio.gather(*attempts, return_exceptions=True):
        assert isinstance(answer, StoreUnavailable)
    # what was there can still be read, and nothing else is there
    assert await store.executions.open() == [running]
    disk.repair()
    await store.check()
    created = await world.create()
    reported = await world.report(running, chunks=[out(0, b"again")])
    assert await store.executions.open() == [reported, created]
    await store.close()


async def test_a_disk_that_fills_up_loses_nothing_that_was_answered(tmp_path: Path, disk: Disk) -> None:
    store = open_sqlite(tmp_path)
    world = await World.made(store)
    running = await world.running()
    disk.room = 2_000_000
    answered, text = 0, b"0123456789" * 3_000
    with pytest.raises(StoreUnavailable, match="full"):  # noqa: PT012
        while True:
            running = await world.report(running, chunks=[out(answered, text)])
            answered += len(text)
    assert answered
    assert await world.stored(running) == running
    disk.repair()
    ended = await world.report(
        running, chunks=[out(answered, b"end")], outcome=outcome(ExecutionEvent.SUCCEEDED, world.tick())
    )
    await store.close()
    store = world.store = open_sqlite(tmp_path)
    assert await world.stored(ended) == ended
    assert len(await world.log(ended)) == ended.last_sequence
    kept = await store.executions.output(ended, Stream.STDOUT, start=0, end=1 << 30)
    assert kept == text * (answered // len(text)) + b"end"
    await store.close()


async def test_faults_at_any_moment_leave_answers_true(tmp_path: Path, disk: Disk) -> None:
    store = open_sqlite(tmp_path)
    world = await World.made(store)
    made: list[Execution] = []
    for room in range(0, 120_000, 4_100):
        disk.room = room
        for _ in range(3):
            with suppress(StoreUnavailable):
                made.append(await world.create(command=("x" * 5_000,)))
        disk.repair()
    assert 0 < len(made) < 90
    assert await store.executions.open() == made
    await store.close()


async def test_a_file_locked_by_somebody_is_unavailable_until_it_is_not(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path)
    world = await World.made(store)
    # Python's own sqlite3 would not do: two SQLites in one process do not see each other's locks.
    with closing(apsw.Connection(str(tmp_path / "dormice.sqlite3"))) as intruder:
        intruder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await world.create()
        assert await store.machines.live() == [world.machine]
        intruder.execute("ROLLBACK")
    created = await world.create()
    assert await store.executions.open() == [created]
    await store.close()


async def test_what_fails_alone_fails_alone(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path)
    world = await World.made(store)
    attempts = [world.create(machine_id="dm-none" if n % 3 else world.machine.id) for n in range(30)]
    answers = await asyncio.gather(*attempts, return_exceptions=True)
    made = [answer for answer in answers if isinstance(answer, Execution)]
    assert [isinstance(answer, LookupError) for answer in answers] == [bool(n % 3) for n in range(30)]
    assert await store.executions.open() == made
    await store.close()
