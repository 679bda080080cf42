"""Between server and node: whatever bytes come, they are messages or one error, and messages survive."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, get_args

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dormice.engine.gateway import Gateway
from dormice.protocol import node as wire
from dormice.protocol.framing import MAX_MESSAGE_BYTES, Framer, FramingViolation, frame
from tests.fuzz.budget import fuzzed
from tests.fuzz.hostile import damaged, pieces

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
FIELDS = {
    str: texts,
    bytes: st.binary(max_size=20),
    int: int64,
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    list[str]: st.lists(texts, max_size=3),
    tuple[str, ...] | None: st.none() | st.lists(texts, max_size=3).map(tuple),
    list[bytes]: st.lists(st.binary(max_size=16), max_size=3),
    dict[str, str]: st.dictionaries(texts, texts, max_size=3),
    list[wire.MachineSeen]: st.lists(st.builds(wire.MachineSeen, texts, st.binary(max_size=16)), max_size=3),
}


def messages(kinds: Any) -> st.SearchStrategy[Any]:
    return st.one_of(
        [
            st.builds(kind, **{field.name: FIELDS[field.type] for field in msgspec.structs.fields(kind)})
            for kind in kinds
        ]
    )


to_node, from_node = messages(get_args(wire.ToNode)), messages(get_args(wire.FromNode))


@fuzzed(examples=200)
@given(to_node, from_node)
def test_messages_survive(order: wire.ToNode, report: wire.FromNode) -> None:
    assert wire.decode_to_node(wire.encode(order)) == order
    assert wire.decode_from_node(wire.encode(report)) == report


@fuzzed(examples=400)
@given(damaged(st.one_of(to_node, from_node).map(wire.encode)))
def test_a_damaged_message_is_a_message_or_one_error(data: bytes) -> None:
    for decode in (wire.decode_to_node, wire.decode_from_node):
        with suppress(wire.NodeProtocolViolation):
            again = wire.encode(decode(data))
            assert wire.encode(decode(again)) == again


@fuzzed(examples=200)
@given(pieces(damaged(st.lists(st.binary(max_size=40)).map(lambda all_: b"".join(map(frame, all_))))))
def test_a_stream_is_cut_into_what_it_announces(stream: list[bytes]) -> None:
    framer, got, whole = Framer(), list[bytes](), b"".join(stream)
    with suppress(FramingViolation):
        for piece in stream:
            got += framer.feed(piece)
        assert whole.startswith(b"".join(map(frame, got)))
        rest = whole[len(b"".join(map(frame, got))) :]
        assert len(rest) < 4 or len(rest) - 4 < int.from_bytes(rest[:4], "little") <= MAX_MESSAGE_BYTES


class _Listener:
    """Hears what the engine would."""

    def __init__(self) -> None:
        self.joined = False

    def node_joined(self, hello: wire.NodeHello) -> None:
        assert hello.version == wire.VERSION
        self.joined = True

    def node_left(self) -> None:
        assert self.joined
        self.joined = False

    def node_said(self, message: wire.FromNode) -> None:
        assert self.joined
        wire.encode(message)


HELLO = wire.NodeHello(wire.VERSION, "n", 1.0, 1, 1, True, [])


@fuzzed(examples=200)
@given(
    st.booleans(),
    pieces(
        damaged(st.lists(from_node, max_size=5).map(lambda all_: b"".join(frame(wire.encode(one)) for one in all_)))
    ),
)
def test_a_hostile_node_is_dropped_and_nothing_else(polite: bool, stream: list[bytes]) -> None:  # noqa: FBT001
    async def speak() -> None:
        gateway, listener = Gateway(), _Listener()
        gateway.bind(listener)
        connection = gateway.protocol()
        if polite:
            connection.data_received(frame(wire.encode(HELLO)))
        for piece in stream:
            connection.data_received(piece)

    asyncio.run(speak())
