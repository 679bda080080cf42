"""SQLite: the writer shares commits, answers after them, and lets nobody wait for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import apsw
import pytest

from dormice.store.interface import StoreUnavailable
from dormice.store.sqlite.connection import open_reader, open_writer
from dormice.store.sqlite.integrity import Watch
from dormice.store.sqlite.writer import BATCH_LIMIT, NEAR_LIMIT, Writer
from tests.wait import others_run


class Counted:
    """A writer over one table, and how often it has committed."""

    def __init__(self, path: Path) -> None:
        db = open_writer(path)
        db.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        self.commits = 0
        self.threads: list[threading.Thread] = []
        """Where each insert ran."""
        db.set_commit_hook(self.count)
        self.writer = Writer(db, Watch(path))
        self.reader = open_reader(path)

    def count(self) -> bool:
        self.commits += 1
        return False

    def insert(self, number: int, *, short: bool = False) -> asyncio.Future[int]:
        def operation(db: apsw.Connection) -> int:
            db.execute("INSERT INTO numbers VALUES (?)", (number,))
            self.threads.append(threading.current_thread())
            return number

        return self.writer.run(operation, short=short)

    def stored(self) -> list[int]:
        return [number for (number,) in self.reader.execute("SELECT n FROM numbers ORDER BY n")]


@pytest.fixture
async def counted(tmp_path: Path) -> AsyncIterator[Counted]:
    counted = Counted(tmp_path / "x.sqlite3")
    yield counted
    counted.reader.close()
    await counted.writer.close()


class Busy:
    """Keeps the writer busy with one operation while the block is in force."""

    def __init__(self, counted: Counted) -> None:
        self.begun = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.gate: SimpleQueue[None] = SimpleQueue()
        self.done = counted.writer.run(self.wait)

    def wait(self, _db: apsw.Connection) -> None:
        self.loop.call_soon_threadsafe(self.begun.set)
        self.gate.get(timeout=60)

    async def __aenter__(self) -> None:
        await self.begun.wait()

    async def __aexit__(self, *_: object) -> None:
        self.gate.put(None)
        await self.done


async def test_what_comes_while_the_writer_is_busy_shares_one_commit(counted: Counted) -> None:
    async with Busy(counted):
        answers = asyncio.gather(*map(counted.insert, range(100)))
    assert await answers == list(range(100))
    assert counted.stored() == list(range(100))
    assert counted.commits == 2


async def test_commits_are_counted_and_what_an_operation_refuses_is_no_failure(counted: Counted) -> None:
    def refuse(_db: apsw.Connection) -> None:
        raise ValueError("this is not for the store")

    def break_off(_db: apsw.Connection) -> None:
        raise apsw.FullError("the disk is full")

    async with Busy(counted):
        answers = asyncio.gather(*map(counted.insert, range(100)))
    await answers
    figures = counted.writer.commits
    assert (sum(figures.seconds.counts), sum(figures.operations.counts), figures.operations.total) == (2, 2, 101)
    with pytest.raises(ValueError, match="not for the store"):
        await counted.writer.run(refuse)
    assert figures.failed == 0
    with pytest.raises(StoreUnavailable):
        await counted.writer.run(break_off)
    assert figures.failed == 1
    assert sum(figures.operations.counts) == 2


async def test_a_batch_has_a_limit(counted: Counted) -> None:
    async with Busy(counted):
        answers = asyncio.gather(*map(counted.insert, range(2 * BATCH_LIMIT)))
    await answers
    assert counted.commits == 3


async def test_an_idle_writer_commits_at_once(counted: Counted) -> None:
    for number in range(5):
        assert await counted.insert(number) == number
        assert counted.stored() == list(range(number + 1))
    assert counted.commits == 5


async def test_a_short_operation_that_comes_alone_is_committed_where_it_is_asked_for(counted: Counted) -> None:
    for number in range(3):
        counted.writer._quick = True  # however slow this host's disk is
        assert await counted.insert(number, short=True) == number
        assert counted.stored() == list(range(number + 1))
    assert set(counted.threads) == {threading.main_thread()}
    assert counted.commits == 3


async def test_short_operations_that_come_together_share_a_commit_where_they_are_asked_for(counted: Counted) -> None:
    answers = await asyncio.gather(*(counted.insert(number, short=True) for number in range(NEAR_LIMIT)))
    assert answers == list(range(NEAR_LIMIT))
    assert set(counted.threads) == {threading.main_thread()}
    assert counted.commits == 1


async def test_those_of_the_turns_that_follow_share_one_too_as_long_as_each_brings_more(counted: Counted) -> None:
    async def later(number: int, turns: int) -> int:
        for _ in range(turns):
            await others_run()
        counted.writer._quick = True  # however slow this host's disk is
        return await counted.insert(number, short=True)

    for before, commits in ((1, 4), (2, 2)):  # after one that came alone each turn's is committed for itself
        first = counted.commits
        counted.writer._quick = True
        await asyncio.gather(*(counted.insert(10 * before + number, short=True) for number in range(before)))
        numbers = [10 * before + 5 + turns for turns in range(3)]
        assert await asyncio.gather(*map(later, numbers, range(3))) == numbers
        assert counted.commits - first == commits
    assert set(counted.threads) == {threading.main_thread()}


async def test_the_event_loop_is_not_held_for_more_than_a_limit(counted: Counted) -> None:
    answers = await asyncio.gather(*(counted.insert(number, short=True) for number in range(NEAR_LIMIT + 1)))
    assert answers == list(range(NEAR_LIMIT + 1))
    assert threading.main_thread() not in counted.threads
    assert counted.commits < 5


async def test_one_of_several_short_operations_that_raises_is_undone_alone(counted: Counted) -> None:
    def half(db: apsw.Connection) -> None:
        db.execute("INSERT INTO numbers VALUES (100)")
        raise ZeroDivisionError

    first, failed, last = (
        counted.insert(1, short=True),
        counted.writer.run(half, short=True),
        counted.insert(2, short=True),
    )
    assert (await first, await last) == (1, 2)
    with pytest.raises(ZeroDivisionError):
        await failed
    assert counted.stored() == [1, 2]


async def test_a_short_operation_waits_its_turn_while_the_thread_is_busy(counted: Counted) -> None:
    async with Busy(counted):
        answer = counted.insert(1, short=True)
        await others_run()
        assert not answer.done()
    assert await answer == 1
    assert threading.main_thread() not in counted.threads


async def test_a_slow_disk_keeps_commits_off_the_loop(counted: Counted) -> None:
    counted.writer._quick = False
    assert await counted.insert(1, short=True) == 1
    assert threading.main_thread() not in counted.threads


async def test_short_and_long_operations_keep_their_order(counted: Counted) -> None:
    seen: list[int] = []

    def note(_db: apsw.Connection, number: int) -> None:
        seen.append(number)

    jobs = (counted.writer.run(partial(note, number=number), short=number % 3 > 0) for number in range(500))
    await asyncio.gather(*jobs)
    assert seen == list(range(500))


async def test_a_short_operation_that_raises_leaves_no_trace(counted: Counted) -> None:
    def half(db: apsw.Connection) -> None:
        db.execute("INSERT INTO numbers VALUES (100)")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await counted.writer.run(half, short=True)
    assert await counted.insert(1, short=True) == 1
    assert counted.stored() == [1]


async def test_closing_finishes_what_was_to_be_committed_on_the_loop(tmp_path: Path) -> None:
    counted = Counted(tmp_path / "y.sqlite3")
    answer = counted.insert(1, short=True)
    await counted.writer.close()
    assert await answer == 1
    assert counted.stored() == [1]
    counted.reader.close()


async def test_operations_run_in_the_order_in_which_they_came(counted: Counted) -> None:
    seen: list[int] = []

    def note(_db: apsw.Connection, number: int) -> None:
        seen.append(number)

    await asyncio.gather(*(counted.writer.run(partial(note, number=number)) for number in range(500)))
    assert seen == list(range(500))


async def test_one_that_raises_is_undone_alone(counted: Counted) -> None:
    def half(db: apsw.Connection) -> None:
        db.execute("INSERT INTO numbers VALUES (100)")
        raise ZeroDivisionError

    answers = await asyncio.gather(
        counted.insert(1), counted.writer.run(half), counted.insert(1), counted.insert(2), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [int, ZeroDivisionError, ValueError, int]
    assert counted.stored() == [1, 2]


async def test_a_lost_transaction_fails_all_that_were_in_it(counted: Counted) -> None:
    def give_up(db: apsw.Connection) -> None:
        db.execute("ROLLBACK")
        raise apsw.FullError("disk full")

    async with Busy(counted):
        lost = asyncio.gather(counted.insert(1), counted.writer.run(give_up), counted.insert(2), return_exceptions=True)
    answers = await lost
    assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    assert counted.stored() == []
    assert await counted.insert(3) == 3


async def test_a_refused_commit_fails_all_that_were_in_it(counted: Counted) -> None:
    refuse = True
    counted.writer._db.set_commit_hook(lambda: refuse)
    answers = await asyncio.gather(counted.insert(1), counted.insert(2), return_exceptions=True)
    assert all(isinstance(answer, Exception) for answer in answers)
    refuse = False
    assert counted.stored() == []
    assert await counted.insert(3) == 3


async def test_a_caller_who_gave_up_disturbs_nobody(counted: Counted) -> None:
    async with Busy(counted):
        gone, stayed = counted.insert(1), counted.insert(2)
        gone.cancel()
    assert await stayed == 2
    assert gone.cancelled()


async def test_closing_finishes_what_is_queued_and_ends_the_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    counted = Counted(tmp_path / "x.sqlite3")
    queued = asyncio.gather(*map(counted.insert, range(600)))
    await asyncio.gather(counted.writer.close(), counted.writer.close())
    assert await queued == list(range(600))
    assert len(counted.stored()) == 600
    with pytest.raises(StoreUnavailable):
        await counted.insert(1_000)
    counted.reader.close()
    assert threading.active_count() == before
