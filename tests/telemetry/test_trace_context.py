"""Which `traceparent` is taken, and which is as absent: https://www.w3.org/TR/trace-context/."""

from __future__ import annotations

import pytest

from dormice.api.http.trace_context import TraceContext, trace_context

TRACE = b"0af7651916cd43dd8448eb211c80319c"
SPAN = b"b7ad6b7169203331"
VALID = b"00-" + TRACE + b"-" + SPAN + b"-01"


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (VALID, True),
        (VALID[:-2] + b"00", False),
        (VALID[:-2] + b"03", True),
        (VALID[:-2] + b"fe", False),
        (b"01" + VALID[2:], True),
        (b"cc" + VALID[2:] + b"-what-a-later-version-adds", True),
    ],
)
def test_a_valid_one_is_taken(value: bytes, *, sampled: bool) -> None:
    assert trace_context([value], []) == TraceContext(TRACE.decode(), SPAN.decode(), sampled, "")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        TRACE,
        VALID[:-1],
        VALID + b"-",
        VALID + b"-more",
        VALID + b"1",
        b"ff" + VALID[2:],
        b"0" + VALID,
        VALID.upper(),
        VALID.replace(b"0af7", b"0AF7"),
        VALID.replace(b"0af7", b"0ag7"),
        VALID.replace(TRACE, b"0" * 32),
        VALID.replace(SPAN, b"0" * 16),
        VALID.replace(b"-", b"_"),
        VALID + b" ",
        VALID + b"\n",
        b"01" + VALID[2:] + b".more",
        VALID.replace(b"0af7", b"\xd9\xa0af"),
    ],
)
def test_another_is_as_absent(value: bytes) -> None:
    assert trace_context([value], [b"vendor=1"]) is None


def test_two_of_them_are_none() -> None:
    assert trace_context([VALID, VALID], []) is None


def test_what_vendors_add_is_joined_and_bounded() -> None:
    found = trace_context([VALID], [b"a=1", b"b=2,c=3"])
    assert found is not None
    assert found.state == "a=1,b=2,c=3"
    flooded = trace_context([VALID], [b"a=" + b"x" * 10_000])
    assert flooded is not None
    assert flooded.state == ""
