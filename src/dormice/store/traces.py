"""The port of the store for traces: the spans that workers report, by the root run that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from dormice.domain.execution import Micros
from dormice.domain.run import Json


class Span(Struct, frozen=True, kw_only=True):
    """A piece of work that a worker has done. None stands for what was not said."""

    trace_id: str
    """32 hexadecimal digits: the root run's id without dashes."""
    span_id: str
    parent_span_id: str | None
    name: str
    span_type: str
    started_at: Micros
    ended_at: Micros | None = None
    attributes: Json | None = None
    events: Json | None = None
    input: Json | None = None
    output: Json | None = None
    error: Json | None = None
    initial_state: Json | None = None
    final_state: Json | None = None


class Trace(Struct, frozen=True, kw_only=True):
    """A trace by its root spans, of which a run has one for each time that a worker had it: named by the first, ended by the last."""

    trace_id: str
    first: Span
    last: Span


class TraceFilter(Struct, frozen=True, kw_only=True):
    """Which traces of a project are listed; None leaves a field open."""

    root_span_type: str | None = None
    root_span_name: str | None = None
    has_error: bool | None = None
    since: Micros | None = None
    until: Micros | None = None


class TraceStore(Protocol):
    """Spans of a project's traces."""

    async def put(self, project_id: str, spans: Sequence[Span], *, now: Micros) -> None:
        """Record spans, all or none; one that is there already (same trace, same span id) is replaced."""
        ...

    async def page(self, project_id: str, which: TraceFilter, *, offset: int, limit: int) -> list[Trace]:
        """Traces that have a root span, by the start of the first, the newest first; unless a type or a name is asked for, those of runs."""
        ...

    async def root(self, project_id: str, trace_id: str) -> Trace | None:
        """One such trace."""
        ...

    async def spans(self, project_id: str, trace_id: str, *, limit: int, max_bytes: int) -> tuple[list[Span], bool]:
        """The spans of a trace by their start, and whether there are more: at most `limit`, and no more once so many bytes are
        collected (but at least one).
        """
        ...
