"""The port: secrets that an execution is started with and fed with."""

import random

import pytest

from dormice.domain.execution import TERMINAL, Execution, ExecutionEvent, ExecutionState, StdinMode
from dormice.store.interface import StdinRefusal
from tests.store.world import World, outcome


async def feed(world: World, execution: Execution, offset: int, data: bytes, *, eof: bool = False) -> object:
    return await world.store.executions.append_stdin(execution.id, offset, data, eof=eof, now=world.tick())


async def everything(world: World, execution: Execution, offset: int = 0) -> bytes:
    segments = await world.store.executions.stdin(execution, offset=offset, max_bytes=1 << 40)
    whole = b""
    for segment in segments:
        assert not whole or segment.offset == segments[0].offset + len(whole)
        whole += segment.data
    return whole[max(0, offset - segments[0].offset) :] if segments else b""


async def test_the_environment_is_kept_until_the_start(world: World) -> None:
    env = {"TOKEN": "s3cret", "EMPTY": "", "ü": "\U0001f400\n"}
    claimed = await world.claimed(env=env)
    assert claimed.env_keys == tuple(env)
    assert await world.store.executions.environment(claimed) == env
    started = await world.report(claimed, started_at=world.tick())
    assert await world.store.executions.environment(started) == {}
    assert started.env_keys == tuple(env)


async def test_the_environment_goes_with_an_end_before_the_start(world: World) -> None:
    claimed = await world.claimed(env={"A": "1"})
    ended = await world.report(claimed, outcome=outcome(ExecutionEvent.FAILED, world.tick()))
    assert await world.store.executions.environment(ended) == {}


async def test_given_input_is_there_from_the_beginning_and_closed(world: World) -> None:
    text = random.Random(1).randbytes(300_000)
    claimed = await world.claimed(stdin_mode=StdinMode.GIVEN, stdin=text)
    assert (claimed.stdin_offset, claimed.stdin_eof) == (len(text), True)
    assert await everything(world, claimed) == text
    assert await everything(world, claimed, 123_456) == text[123_456:]
    assert await feed(world, claimed, len(text), b"more") is StdinRefusal.CLOSED


async def test_open_input_grows_until_its_end(world: World) -> None:
    running = await world.running(stdin_mode=StdinMode.OPEN)
    assert (running.stdin_offset, running.stdin_eof) == (0, False)
    await feed(world, running, 0, b"one ")
    fed = await feed(world, running, 4, b"two", eof=True)
    assert isinstance(fed, Execution)
    assert (fed.stdin_offset, fed.stdin_eof) == (7, True)
    assert await world.stored(running) == fed
    assert await everything(world, fed) == b"one two"


async def test_input_sent_again_is_kept_once(world: World) -> None:
    running = await world.running(stdin_mode=StdinMode.OPEN)
    await feed(world, running, 0, b"hello")
    assert isinstance(await feed(world, running, 0, b"hello"), Execution)
    fed = await feed(world, running, 3, b"lo, world", eof=True)
    assert await feed(world, running, 3, b"lo, world", eof=True) == fed
    assert await feed(world, running, 0, b"hello") == fed
    assert isinstance(fed, Execution)
    assert await everything(world, fed) == b"hello, world"


async def test_a_gap_in_the_input_is_refused(world: World) -> None:
    running = await world.running(stdin_mode=StdinMode.OPEN)
    fed = await feed(world, running, 0, b"abc")
    assert await feed(world, running, 4, b"e") is StdinRefusal.GAP
    assert await feed(world, running, 0, b"a", eof=True) is StdinRefusal.GAP  # its end would stand before "bc"
    assert await world.stored(running) == fed


async def test_nothing_follows_the_end_of_input(world: World) -> None:
    running = await world.running(stdin_mode=StdinMode.OPEN)
    fed = await feed(world, running, 0, b"", eof=True)
    assert await feed(world, running, 0, b"x") is StdinRefusal.CLOSED
    assert await world.stored(running) == fed


@pytest.mark.parametrize("mode", [StdinMode.EMPTY, StdinMode.GIVEN])
async def test_input_that_is_not_open_takes_nothing(world: World, mode: StdinMode) -> None:
    running = await world.running(stdin_mode=mode)
    assert await feed(world, running, 0, b"x") is StdinRefusal.CLOSED


@pytest.mark.parametrize("state", TERMINAL)
async def test_what_has_ended_takes_no_input_and_keeps_none(world: World, state: ExecutionState) -> None:
    ended = await world.in_state(state, stdin_mode=StdinMode.GIVEN, stdin=b"secret")
    assert await feed(world, ended, 6, b"x") is StdinRefusal.ENDED
    assert await everything(world, ended) == b""


async def test_input_is_read_in_pieces_and_at_least_one(world: World) -> None:
    text = random.Random(1).randbytes(300_000)
    claimed = await world.claimed(stdin_mode=StdinMode.GIVEN, stdin=text)
    read, at = world.store.executions.stdin, 0
    while segments := await read(claimed, offset=at, max_bytes=1):
        assert len(segments) == 1
        assert segments[0].data == text[segments[0].offset :][: len(segments[0].data)]
        at = segments[0].offset + len(segments[0].data)
    assert at == len(text)
    assert sum(len(segment.data) for segment in await read(claimed, offset=0, max_bytes=140_000)) <= 140_000


async def test_input_that_was_written_is_deleted(world: World) -> None:
    text = random.Random(1).randbytes(300_000)
    running = await world.running(stdin_mode=StdinMode.GIVEN, stdin=text)
    await world.store.executions.trim_stdin(running.id, 200_000)
    segments = await world.store.executions.stdin(running, offset=0, max_bytes=1 << 40)
    assert 0 < segments[0].offset <= 200_000
    assert await everything(world, running, 200_000) == text[200_000:]
    await world.store.executions.trim_stdin(running.id, 300_000)
    assert await everything(world, running) == b""


async def test_what_names_no_offset_goes_behind_what_is_committed(world: World) -> None:
    execution = await world.claimed(stdin_mode=StdinMode.OPEN)
    append, now = world.store.executions.append_stdin, world.tick()
    for _ in range(3):
        assert isinstance(await append(execution.id, None, b"abc", eof=False, now=now), Execution)
    assert await everything(world, execution) == b"abc" * 3
