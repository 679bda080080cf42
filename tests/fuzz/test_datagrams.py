"""What machines and the kernel send the node: DNS messages and netlink answers, whole or not."""

from __future__ import annotations

import asyncio
import itertools
import struct
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dormice.node import netlink
from dormice.node.dns import Forwarder, NotAQuestion, Resolvers, failure, is_answer, question_of
from dormice.node.dns_records import BadMessage, addresses
from tests.fuzz.budget import fuzzed
from tests.fuzz.hostile import damaged

labels = st.binary(min_size=1, max_size=63)


@st.composite
def queries(draw: st.DrawFn) -> bytes:
    flags = draw(st.sampled_from((0x0100, 0, 0x8180, 0x8182, 0x2800)))
    count = draw(st.sampled_from((1, 1, 1, 0, 2)))
    name = b"".join(bytes([len(label)]) + label for label in draw(st.lists(labels, max_size=5)))
    rest = draw(st.binary(max_size=20))
    return struct.pack(">HHHHHH", draw(st.integers(0, 65_535)), flags, count, 0, 0, 1) + name + b"\0\0\1\0\1" + rest


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """One question, and addresses and aliases whose names are whole or point somewhere."""
    names = st.sampled_from((b"\xc0\x0c", b"\1a\0", b"\0", b"\xc0\x00", b"\1b\xc0\x0c", b"\xc0\x20"))
    address = st.builds(
        lambda name, ttl: name + struct.pack(">HHIH4s", 1, 1, ttl, 4, b"\1\2\3\4"), names, st.integers(0, 2**32 - 1)
    )
    alias = st.builds(lambda name, to: name + struct.pack(">HHIH", 5, 1, 60, len(to)) + to, names, names)
    records = draw(st.lists(address | alias, max_size=6))
    head = struct.pack(">HHHHHH", 1, 0x8180, 1, len(records), 0, 0)
    return head + b"\1a\0\0\1\0\1" + b"".join(records)


@fuzzed(examples=500)
@given(damaged(queries()), damaged(queries()))
def test_a_datagram_is_a_question_or_is_dropped(asked: bytes, answered: bytes) -> None:
    try:
        question = question_of(asked)
    except NotAQuestion:
        return
    assert asked[12:].startswith(question)
    assert 5 <= len(question) <= 255 + 5
    refusal = failure(asked, question)
    message_id = int.from_bytes(asked[:2], "big")
    assert is_answer(refusal, message_id, question)
    if is_answer(answered, message_id, question):
        assert answered[:2] == asked[:2]


@fuzzed(examples=500)
@given(damaged(answers()) | st.binary(max_size=200))
def test_whatever_a_resolver_answers_has_addresses_or_is_a_bad_message(answer: bytes) -> None:
    with suppress(BadMessage):
        found = addresses(answer)
        assert all(0 <= ttl < 1 << 31 for ttl in found.values())
        assert len(found) <= len(answer) // 16


@fuzzed(examples=100)
@given(st.lists(damaged(queries()) | st.binary(max_size=40), max_size=4))
def test_whatever_a_machine_asks_the_forwarder_answers_or_is_silent(messages: list[bytes]) -> None:
    forwarder = Forwarder(IPv4Address("127.0.0.1"), IPv4Network("127.0.0.0/8"), Resolvers(Path("/nowhere")))

    async def ask() -> None:
        for message in messages:
            with suppress(NotAQuestion):
                answer = await forwarder.answer("127.0.0.2", message, stream=False)
                assert answer[:2] == message[:2]
                assert len(answer) <= len(message)

    asyncio.run(ask())


@fuzzed(examples=300)
@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=12)), max_size=5))
def test_attributes_survive(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(netlink._attr(kind, value) for kind, value in pairs)
    assert list(netlink._attributes(data)) == pairs


@fuzzed(examples=300)
@given(damaged(st.binary(max_size=24).map(lambda body: netlink._attr(1, body) + netlink._attr(2, body))))
def test_damaged_attributes_end(data: bytes) -> None:
    with suppress(OSError):
        assert len(list(itertools.islice(netlink._attributes(data), len(data) + 1))) <= len(data)
