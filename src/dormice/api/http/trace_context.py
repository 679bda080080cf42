"""W3C Trace Context: to which trace a request belongs, as far as its headers say so. Pure.

What is not exactly as the specification has it (https://www.w3.org/TR/trace-context/) is as absent: never an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_FORBIDDEN_VERSION = b"ff"
_FIRST_VERSION = b"00"
_MOST_STATE_BYTES = 8192
"""More than any vendor's: the specification asks for 512 at least."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The client's trace and its span in it."""

    trace_id: str
    """32 hexadecimal digits, not all zero."""
    span_id: str
    """16 hexadecimal digits, not all zero."""
    sampled: bool
    """Whether the client may have recorded its own span."""
    state: str
    """What vendors add, as it came, several headers joined; may be empty or ill-formed."""


def trace_context(parents: Sequence[bytes], states: Sequence[bytes]) -> TraceContext | None:
    """Return what `traceparent` and `tracestate` headers say; None when there is no valid `traceparent`."""
    match = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == _FORBIDDEN_VERSION or (version == _FIRST_VERSION and more is not None):
        return None
    if not trace_id.strip(b"0") or not span_id.strip(b"0"):
        return None
    state = b",".join(states)
    if len(state) > _MOST_STATE_BYTES:
        state = b""
    return TraceContext(trace_id.decode(), span_id.decode(), bool(int(flags, 16) & 1), state.decode("latin-1"))
