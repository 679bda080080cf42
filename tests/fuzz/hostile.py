"""Bytes that were good once: what a decoder has to survive is mostly right."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st


@st.composite
def damaged(draw: st.DrawFn, good: st.SearchStrategy[bytes]) -> bytes:
    """What `good` gives with some bytes changed, cut out, put in, or said twice."""
    data = bytearray(draw(good))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 8))
        match draw(st.sampled_from(("change", "cut", "insert", "repeat"))):
            case "change":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del data[at : at + size]
            case "insert":
                data[at:at] = draw(st.binary(min_size=size, max_size=size))
            case _:
                data[at:at] = data[at : at + size * 4]
    return bytes(data)


@st.composite
def pieces(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> list[bytes]:
    """What `whole` gives, cut anywhere."""
    data = draw(whole)
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=6))
    return [data[start:end] for start, end in itertools.pairwise(sorted({0, len(data), *cuts}))]
