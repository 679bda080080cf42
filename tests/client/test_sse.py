"""The decoder of server-sent events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dormice.client.sse import Decoder

TEXT = b': ka\n\nevent: status\nid: 7\ndata: {"a":\ndata: 1}\n\ndata:x\n\nid: 9\n\nevent: cut\ndata: off\n'
EVENTS = [("status", '{"a":\n1}', "7"), ("message", "x", None)]


def decoded(chunks: list[bytes]) -> list[tuple[str, str, str | None]]:
    decoder = Decoder()
    return [(event.name, event.data, event.id) for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@given(cuts=st.sets(st.integers(0, 90)))
def test_events_are_the_same_however_the_bytes_are_cut(newline: bytes, cuts: set[int]) -> None:
    text = TEXT.replace(b"\n", newline)
    edges = [0, *sorted(cuts), len(text)]
    assert decoded([text[a:b] for a, b in pairwise(edges)]) == EVENTS


@given(st.lists(st.binary()))
def test_no_bytes_make_it_fail(chunks: list[bytes]) -> None:
    decoded(chunks)


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    assert decoded([b"data: \xff\n\n"]) == [("message", "\ufffd", None)]
