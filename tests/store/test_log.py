"""The port: the log of an execution, and output by byte offset."""

import random

import pytest

from dormice.domain.execution import ErrorCode, ExecutionEvent, ExecutionState, LogEntry, Stream
from dormice.store.interface import LostRace, OutputMissing
from tests.store.world import World, err, out, outcome

S = ExecutionState


async def test_a_whole_life_in_order(world: World) -> None:
    made = await world.create(awake=False)
    created = world.now
    await world.store.executions.machine_ready(made.id, world.tick())
    await world.store.executions.machine_ready(world.machine.id, world.tick())
    ready = world.now
    await world.store.executions.claim(made.id, world.boot, world.tick())
    await world.report(made, started_at=world.tick(), chunks=[out(0, b"one"), err(0, b"two")])
    started = world.now
    failure = outcome(
        ExecutionEvent.FAILED,
        world.tick(),
        exit_code=3,
        error_code=ErrorCode.NONZERO_EXIT,
        error_message="It exited 3.",
    )
    ended = await world.report(made, chunks=[out(3, b"three")], outcome=failure)
    assert await world.log(ended) == [
        LogEntry(sequence=1, at=created, state=S.WAKE_IN_PROGRESS),
        LogEntry(sequence=2, at=ready, state=S.QUEUED),
        LogEntry(sequence=3, at=started - 1_000, state=S.RUNNING),
        LogEntry(sequence=4, at=started, stream=Stream.STDOUT, offset=0, data=b"one"),
        LogEntry(sequence=5, at=started, stream=Stream.STDERR, offset=0, data=b"two"),
        LogEntry(sequence=6, at=world.now, stream=Stream.STDOUT, offset=3, data=b"three"),
        LogEntry(
            sequence=7,
            at=failure.completed_at,
            state=S.FAILED,
            exit_code=3,
            error_code=ErrorCode.NONZERO_EXIT,
            error_message="It exited 3.",
        ),
    ]
    assert (ended.stdout_bytes, ended.stdout_kept, ended.stderr_bytes, ended.stderr_kept) == (8, 8, 3, 3)


async def test_small_chunks_of_one_report_share_an_entry_in_order(world: World) -> None:
    running = await world.running()
    chunks = [out(0, b"a"), out(1, b"b"), err(0, b"x"), err(1, b"y"), out(2, b"c")]
    entries = await world.log(await world.report(running, chunks=chunks))
    assert [(entry.stream, entry.offset, entry.data) for entry in entries[2:]] == [
        (Stream.STDOUT, 0, b"ab"),
        (Stream.STDERR, 0, b"xy"),
        (Stream.STDOUT, 2, b"c"),
    ]


async def test_an_entry_of_joined_chunks_stays_small(world: World) -> None:
    running = await world.running()
    chunks = [out(offset, b"z" * 10_000) for offset in range(0, 200_000, 10_000)]
    entries = await world.log(await world.report(running, chunks=chunks))
    assert max(len(entry.data) for entry in entries) <= 64 * 1024
    assert len(entries) == 2 + 4


async def test_a_chunk_sent_again_is_kept_once(world: World) -> None:
    running = await world.running()
    first = await world.report(running, chunks=[out(0, b"hello")])
    assert await world.report(running, chunks=[out(0, b"hello")]) == first
    assert await world.report(running, chunks=[out(2, b"ll")]) == first
    longer = await world.report(running, chunks=[out(3, b"lo, world")])
    assert await world.store.executions.output(longer, Stream.STDOUT, start=0, end=100) == b"hello, world"
    assert len(await world.log(longer)) == 4


async def test_a_gap_is_refused_with_everything_around_it(world: World) -> None:
    claimed = await world.claimed()
    with pytest.raises(ValueError, match="begins at 4"):
        await world.try_report(
            claimed,
            started_at=world.tick(),
            chunks=[out(0, b"abc"), out(4, b"e")],
            outcome=outcome(ExecutionEvent.SUCCEEDED, world.tick()),
        )
    assert await world.stored(claimed) == claimed
    assert len(await world.log(claimed)) == 1


async def test_output_before_the_start_is_refused(world: World) -> None:
    claimed = await world.claimed()
    with pytest.raises(ValueError, match="queued"):
        await world.try_report(claimed, chunks=[out(0, b"early")])
    assert await world.stored(claimed) == claimed


async def test_output_after_the_end_loses_the_race(world: World) -> None:
    ended = await world.ended()
    assert await world.try_report(ended, chunks=[out(0, b"late")]) == LostRace(ended)
    assert await world.store.executions.output(ended, Stream.STDOUT, start=0, end=10) == b""


async def test_totals_beyond_what_is_kept_are_what_the_end_says(world: World) -> None:
    running = await world.report(await world.running(), chunks=[out(0, b"head"), err(0, b"whole")])
    ended = await world.report(
        running, outcome=outcome(ExecutionEvent.SUCCEEDED, world.tick(), stdout_bytes=1 << 40, stderr_bytes=1)
    )
    assert (ended.stdout_bytes, ended.stdout_kept) == (1 << 40, 4)
    assert (ended.stderr_bytes, ended.stderr_kept) == (5, 5)  # no fewer than were seen
    assert await world.stored(ended) == ended


async def test_an_end_before_all_of_its_output_is_refused(world: World) -> None:
    running = await world.report(await world.running(), chunks=[out(0, b"head"), err(0, b"all")])
    end = outcome(ExecutionEvent.SUCCEEDED, world.tick(), stdout_bytes=5, stderr_bytes=3, stdout_sent=5, stderr_sent=3)
    with pytest.raises(OutputMissing, match="stdout has 4 bytes, 5 were sent"):
        await world.try_report(running, outcome=end)
    assert await world.stored(running) == running
    ended = await world.report(running, chunks=[out(4, b"!")], outcome=end)
    assert (ended.stdout_kept, ended.stderr_kept) == (5, 3)


async def test_entries_come_in_pieces_by_cursor_and_count(world: World) -> None:
    running = await world.running()
    for offset in range(10):
        running = await world.report(running, chunks=[out(offset, b"%d" % offset)])
    seen: list[LogEntry] = []
    while page := await world.store.executions.entries(
        running, after=seen[-1].sequence if seen else 0, limit=5, max_bytes=1 << 20
    ):
        assert len(page) <= 5
        seen += page
    assert seen == await world.log(running)


async def test_entries_come_in_pieces_by_size_and_at_least_one(world: World) -> None:
    running = await world.running()
    for offset in range(0, 40_000, 10_000):
        running = await world.report(running, chunks=[out(offset, b"x" * 10_000)])
    entries = world.store.executions.entries
    assert [entry.sequence for entry in await entries(running, after=2, limit=100, max_bytes=1)] == [3]
    assert [entry.sequence for entry in await entries(running, after=2, limit=100, max_bytes=15_000)] == [3, 4]
    assert await entries(running, after=6, limit=100, max_bytes=1) == []


@pytest.mark.parametrize("size", [40_000, 400_000])
async def test_any_range_of_bytes_can_be_read(world: World, size: int) -> None:
    dice = random.Random(7)
    text = dice.randbytes(size)
    running = await world.running()
    at = 0
    while at < size:
        step = dice.choice([1, 100, 5_000, 70_000])
        running = await world.report(running, chunks=[out(at, text[at : at + step]), err(at, text[at : at + step])])
        at += step
    ends = [0, 1, size // 2, size - 1, size, size + 10, *(dice.randrange(size) for _ in range(20))]
    for start in ends:
        for end in ends:
            expected = text[start:end]
            assert await world.store.executions.output(running, Stream.STDERR, start=start, end=end) == expected


async def test_arbitrary_bytes_survive(world: World) -> None:
    text = bytes(range(256)) * 3
    running = await world.report(await world.running(), chunks=[out(0, text)])
    assert await world.store.executions.output(running, Stream.STDOUT, start=0, end=len(text)) == text
    assert (await world.log(running))[-1].data == text
