"""Small texts from clients and from disk: each is understood, or refused by the one error that is meant for it."""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.errors import HttpProblem, describe
from dormice.api.http.pagination import list_cursor, sequence_cursor
from dormice.api.http.ranges import byte_range
from dormice.api.machines.autosleep import PATTERN, autosleep_seconds
from dormice.api.machines.orders import CreateExecutionRequest
from dormice.api.machines.text import LOOK_BACK, StreamDecoder
from dormice.client import sse
from dormice.domain import ids
from dormice.domain.errors import Invalid
from dormice.node import records
from dormice.node.runtime import MachineSpec
from tests.fuzz.budget import fuzzed
from tests.fuzz.hostile import damaged, pieces

numbers = st.integers(0, 10**20).map(str) | st.sampled_from(("", "0", "-1", "\u0663", " 1", "1_0", "+1"))
ranges = st.tuples(
    st.sampled_from(("bytes=", "Bytes= ", "bytes", "x=")), numbers, numbers, st.sampled_from(("", ",1-2", "\n"))
)


@fuzzed(examples=500)
@given(ranges, st.integers(0, 10**6))
def test_a_range_lies_within_the_whole(parts: tuple[str, str, str, str], size: int) -> None:
    unit, first, last, more = parts
    with suppress(HttpProblem):
        found = byte_range(f"{unit}{first}-{last}{more}", size)
        if found is not None:
            start, end = found
            assert 0 <= start < end <= size


class _Query:
    """As much of a call as a cursor takes."""

    def __init__(self, **query: str) -> None:
        self.query = query


@fuzzed(examples=500)
@given(st.one_of(numbers, numbers.map("b{}".format), st.text(max_size=12)))
def test_a_cursor_is_one_that_the_store_can_hold_or_is_refused(text: str) -> None:
    with suppress(Invalid):
        assert 0 <= sequence_cursor(text, "query.cursor") < 10**18
    with suppress(Invalid):
        below = list_cursor(_Query(cursor=text))  # type: ignore[arg-type]
        assert below is None or 0 <= below < 10**18


@fuzzed(examples=500)
@given(
    st.one_of(
        st.lists(st.tuples(numbers, st.sampled_from("wdhms")), max_size=6).map(
            lambda parts: "".join(f"{count}{unit}" for count, unit in parts)
        ),
        numbers,
        st.text("wdhms0123456789 \n", max_size=12),
        st.text(max_size=8),
    )
)
def test_autosleep_is_what_the_document_says(text: str) -> None:
    seconds = autosleep_seconds(text)
    assert seconds is None or 0 <= seconds < 10**18
    if re.search(PATTERN.replace("$", r"\Z"), text, re.ASCII):
        assert seconds is not None


SPEC = MachineSpec(1.0, 256, 1)
identities = st.builds(records.ProcessIdentity, st.integers(0, 2**31), st.integers(0, 2**40), st.just("boot"))
written = st.builds(
    records.Record,
    st.uuids(),
    st.integers(0, 2**31),
    st.just(SPEC),
    st.dictionaries(st.just("PATH"), st.text(max_size=5)),
    st.none() | identities,
)


@fuzzed(examples=300)
@given(damaged(written.map(msgspec.json.encode)) | st.integers(0, 3000).map(lambda depth: b'{"x":' + b"[" * depth))
def test_a_record_on_disk_is_one_or_none(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "record"
        file.write_bytes(data)
        found = records.read(file)
        if found is not None:
            records.write(file, found)
            assert records.read(file) == found


orders = st.fixed_dictionaries(
    {"command": st.lists(st.text(max_size=4), max_size=3)},
    optional={
        "env": st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
        "stdin": st.text(max_size=4),
        "timeout_ms": st.integers(),
        "cwd": st.text(max_size=4),
        "stdin_open": st.booleans(),
        "other": st.none(),
    },
)
DECODER = BodyDecoder(CreateExecutionRequest)


@fuzzed(examples=500)
@given(
    damaged(
        orders.map(lambda order: json.dumps(order, ensure_ascii=len(order) % 2 == 0).encode("utf-8", "surrogatepass"))
    )
)
def test_a_body_is_an_order_or_names_its_fault(data: bytes) -> None:
    try:
        DECODER.decode("application/json", data)
    except Invalid as fault:
        answer = describe(fault)
        assert 400 <= answer.status < 500
        assert answer.body.decode()


@fuzzed(examples=300)
@given(
    pieces(
        st.lists(st.sampled_from(("a", "\u00fc", "\u20ac", "\U0001f42d"))).map("".join).map(str.encode) | st.binary()
    )
)
def test_text_does_not_depend_on_how_output_was_cut(output: list[bytes]) -> None:
    whole = b"".join(output)
    decoder, text, offset = StreamDecoder(0, b""), "", 0
    for index, piece in enumerate(output):
        last = index == len(output) - 1
        text += decoder.decode(piece, last=last)
        again = StreamDecoder(offset, whole[max(0, offset - LOOK_BACK) : offset])
        assert text.endswith(again.decode(piece, last=last))
        offset += len(piece)
    assert text == whole.decode("utf-8", "replace")


streams = st.lists(
    st.sampled_from((b"data: x", b"event: y", b"id: 1", b":", b"", b"\xff", b"data", b"\n", b"\r", b"\r\n"))
)


@fuzzed(examples=300)
@given(pieces(damaged(streams.map(b"".join))))
def test_events_do_not_depend_on_how_the_stream_was_cut(stream: list[bytes]) -> None:
    def events(chunks: list[bytes]) -> list[tuple[str, str, str | None]]:
        decoder = sse.Decoder()
        return [(event.name, event.data, event.id) for chunk in chunks for event in decoder.feed(chunk)]

    assert events(stream) == events([b"".join(stream)])


@fuzzed(examples=500)
@given(
    damaged(st.uuids().map(lambda one: f"dm-{one}".encode())),
    damaged(st.uuids().map(lambda one: f"exec-{one}".encode())),
)
def test_an_id_is_one_or_none(machine: bytes, execution: bytes) -> None:
    found = ids.canonical_machine_id(machine.decode("latin-1"))
    assert found is None or ids.canonical_machine_id(found) == found
    name = execution.decode("latin-1")
    try:
        raw = ids.execution_bytes(name)
    except ValueError:
        return
    assert ids.execution_of(raw).removeprefix(ids.EXECUTION_PREFIX) == name.removeprefix(ids.EXECUTION_PREFIX)
