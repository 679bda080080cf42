"""The host's half of the guest protocol: every frame survives the wire, and nothing else gets in."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dormice.domain.execution import Stream
from dormice.protocol.guest import (
    KNOWN_EXECUTIONS,
    MOST_BYTES,
    NO_ID,
    OUTPUT_FRAME_BYTES,
    STDIN_FRAME_BYTES,
    Ack,
    Cancel,
    End,
    Exited,
    Forget,
    GuestDecoder,
    GuestFrame,
    Hello,
    How,
    NodeDecoder,
    NodeFrame,
    Output,
    Ping,
    Pong,
    Poweroff,
    ProtocolViolation,
    Reason,
    Refused,
    Stale,
    Start,
    Started,
    Stdin,
    StdinState,
    Stop,
    Stopped,
    Welcome,
    encode,
)

HEADER = struct.Struct("<IBBH16s")
ID = bytes(range(1, 17))
ids = st.binary(min_size=16, max_size=16).filter(lambda value: value != NO_ID)
u32, u64 = st.integers(0, (1 << 32) - 1), st.integers(0, MOST_BYTES)
streams = st.sampled_from(Stream)
texts = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
names = texts.map(lambda text: text.replace("=", "")).filter(bool)


@st.composite
def exits(draw: st.DrawFn) -> Exited:
    how = draw(st.sampled_from(How))
    started = how in (How.EXITED, How.SIGNALLED)
    out, err = (draw(u64), draw(u64)) if started else (0, 0)
    codes = {How.EXITED: st.integers(0, 255), How.SIGNALLED: st.integers(1, 64), How.INTERRUPTED: st.integers(0, 64)}
    return Exited(
        execution=draw(ids),
        how=how,
        code=draw(codes.get(how, st.just(0))),
        errno=draw(u32),
        started_at=draw(u64.filter(bool)) if started else 0,
        ended_at=draw(u64),
        stdout_total=out,
        stderr_total=err,
        stdout_kept=draw(st.integers(0, out)),
        stderr_kept=draw(st.integers(0, err)),
        flags=End(draw(st.integers(0, 15))),
    )


guest_frames: st.SearchStrategy[GuestFrame] = st.one_of(
    st.builds(Welcome, ids, st.lists(ids, unique=True, max_size=5).map(tuple)),
    st.builds(Stale, u64),
    st.builds(Started, ids, u64),
    st.builds(Output, ids, streams, u64, st.binary(min_size=1, max_size=300)),
    exits(),
    st.builds(Refused, ids, st.sampled_from(Reason)),
    st.builds(StdinState, ids, u64, st.booleans()),
    st.just(Stopped()),
    st.builds(Pong, u64),
)
starts = st.builds(
    Start,
    execution=ids,
    boot_id=ids,
    argv=st.lists(texts, min_size=1, max_size=4).map(tuple),
    env=st.dictionaries(names, texts, max_size=4),
    cwd=texts,
    kept_limit=u64,
    timeout_ms=u64,
    drain_grace_ms=u32,
    stdin_open=st.booleans(),
)
node_frames: st.SearchStrategy[NodeFrame] = st.one_of(
    st.builds(Hello, u64, st.integers(1, 9)),
    starts,
    st.builds(Stdin, ids, u64, st.binary(max_size=300), st.booleans()),
    st.builds(Ack, ids, streams, u64),
    st.builds(Forget, ids),
    st.builds(Cancel, ids, u32),
    st.builds(Stop, u32),
    st.builds(Ping, u64),
    st.just(Poweroff()),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(st.lists(guest_frames, max_size=6), st.lists(st.integers(0), max_size=12))
def test_frames_from_a_guest_survive_the_wire_however_it_cuts_them(frames: list[GuestFrame], cuts: list[int]) -> None:
    decoder = GuestDecoder()
    data = b"".join(map(encode, frames))
    assert [frame for piece in pieces(data, cuts) for frame in decoder.feed(piece)] == frames


@given(st.lists(node_frames, max_size=6), st.lists(st.integers(0), max_size=12))
def test_frames_from_a_node_survive_the_wire_however_it_cuts_them(frames: list[NodeFrame], cuts: list[int]) -> None:
    decoder = NodeDecoder()
    data = b"".join(map(encode, frames))
    assert [frame for piece in pieces(data, cuts) for frame in decoder.feed(piece)] == frames


@given(st.binary(max_size=200))
def test_noise_raises_one_error_or_waits_for_more(data: bytes) -> None:
    for decoder in (GuestDecoder(), NodeDecoder()):
        try:
            decoder.feed(data)
        except ProtocolViolation:
            with pytest.raises(ProtocolViolation):
                decoder.feed(b"")


@given(guest_frames, st.integers(0), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_gives_a_frame_that_can_be_sent(frame: GuestFrame, at: int, change: int) -> None:
    data = bytearray(encode(frame))
    data[at % len(data)] ^= change
    try:
        decoded = GuestDecoder().feed(bytes(data))
    except ProtocolViolation:
        return
    assert b"".join(map(encode, decoded)) == data[: sum(len(encode(each)) for each in decoded)]


def test_the_largest_frames_pass() -> None:
    many = tuple(number.to_bytes(16, "big") for number in range(1, KNOWN_EXECUTIONS + 1))
    for frame in (Welcome(ID, many), Output(ID, Stream.STDERR, 0, bytes(OUTPUT_FRAME_BYTES))):
        data = encode(frame)
        decoder = GuestDecoder()
        assert decoder.feed(data[:-1]) == []
        assert decoder.feed(data[-1:]) == [frame]


def frame(kind: int, body: bytes = b"", flags: int = 0, zero: int = 0, execution: bytes = ID) -> bytes:
    return HEADER.pack(len(body), kind, flags, zero, execution) + body


def ended(how: int, code: int, started_at: int, total: int = 0, kept: int = 0) -> bytes:
    return frame(69, struct.pack("<BiIQQQQQQ", how, code, 0, started_at, 1, total, 0, kept, 0))


@pytest.mark.parametrize(
    "data",
    [
        frame(64),
        frame(1, bytes(12), execution=NO_ID),
        frame(67, bytes(8), flags=1),
        frame(67, bytes(8), zero=1),
        frame(67, bytes(8), execution=NO_ID),
        frame(72),
        frame(67, bytes(7)),
        frame(68, b"\1" + bytes(8)),
        frame(68, b"\3" + bytes(9)),
        HEADER.pack(10 + OUTPUT_FRAME_BYTES, 68, 0, 0, ID),
        HEADER.pack(0xFFFFFFFF, 68, 0, 0, ID),
        frame(70, b"\0"),
        frame(70, b"\5"),
        frame(71, bytes(8), flags=2),
        frame(65, struct.pack("<I16sI", 2, ID, 0), execution=NO_ID),
        frame(65, struct.pack("<I16sI", 1, ID, 1), execution=NO_ID),
        frame(65, struct.pack("<I16sI", 1, ID, 2) + ID + ID, execution=NO_ID),
        frame(65, struct.pack("<I16sI", 1, ID, 1) + NO_ID, execution=NO_ID),
        HEADER.pack(24 + 16 * (KNOWN_EXECUTIONS + 1), 65, 0, 0, NO_ID),
        ended(0, 0, 1),
        ended(8, 0, 1),
        ended(1, 256, 1),
        ended(1, -1, 1),
        ended(1, 0, 0),
        ended(2, 0, 1),
        ended(2, 65, 1),
        ended(3, 1, 0),
        ended(3, 0, 1),
        ended(4, 0, 0, total=1),
        ended(1, 0, 1, total=1, kept=2),
    ],
)
def test_a_broken_frame_is_refused_as_soon_as_it_can_be_known(data: bytes) -> None:
    decoder = GuestDecoder()
    with pytest.raises(ProtocolViolation):
        decoder.feed(data)
    with pytest.raises(ProtocolViolation):
        decoder.feed(encode(Stopped()))


@pytest.mark.parametrize(
    "broken",
    [
        Start(execution=ID, boot_id=ID, argv=(), env={}, cwd="/", kept_limit=0),
        Start(execution=ID, boot_id=ID, argv=("a\0b",), env={}, cwd="/", kept_limit=0),
        Start(execution=ID, boot_id=ID, argv=("a",), env={"": "x"}, cwd="/", kept_limit=0),
        Start(execution=ID, boot_id=ID, argv=("a",), env={"a=b": "x"}, cwd="/", kept_limit=0),
        Start(execution=ID, boot_id=ID, argv=("a" * (2 << 20),), env={}, cwd="/", kept_limit=0),
        Stdin(ID, 0, bytes(STDIN_FRAME_BYTES + 1)),
    ],
)
def test_what_the_wire_cannot_carry_is_not_encoded(broken: NodeFrame) -> None:
    with pytest.raises(ValueError, match=r".+"):
        encode(broken)


def test_secrets_are_not_part_of_a_frames_text() -> None:
    start = Start(execution=ID, boot_id=ID, argv=("tool", "hunter2"), env={"TOKEN": "hunter2"}, cwd="/", kept_limit=0)
    assert "hunter2" not in f"{start!r} {start} {Stdin(ID, 0, b'hunter2')!r}"


@pytest.mark.parametrize(
    "frame",
    [
        Started(ID, MOST_BYTES + 1),
        StdinState(ID, MOST_BYTES + 1, closed=False),
        Output(ID, Stream.STDOUT, MOST_BYTES + 1, b"x"),
        Exited(execution=ID, how=How.EXITED, code=0, started_at=1, ended_at=2, stdout_total=MOST_BYTES + 1),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_numbers_that_no_store_could_hold_are_lies(frame: GuestFrame) -> None:
    with pytest.raises(ProtocolViolation):
        GuestDecoder().feed(encode(frame))
