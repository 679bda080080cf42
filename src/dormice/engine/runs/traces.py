"""Traces of runs: what workers report of their work, and how it reads as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dormice.domain.errors import ForeignProject, NotFound
from dormice.domain.ids import canonical_uuid
from dormice.engine.clock import Clock
from dormice.engine.runs.board import RunBoard
from dormice.store.projects import Project
from dormice.store.traces import Span, Trace, TraceFilter, TraceStore
from dormice.store.workflows import RunStore

_PREVIOUS = ".previous_span_id"
MOST_SPANS = 10_000
MOST_BYTES = 64 << 20
"""What is read of one trace."""


class WholeTrace(Struct, frozen=True, kw_only=True):
    """A trace with its spans."""

    root: Trace | None
    """None: its root spans have not come yet."""
    spans: Sequence[Span]
    count: int
    """How many spans were reported; `spans` has those besides that link others together."""
    errors: int
    truncated: bool
    """Whether there is more than is read of one trace."""
    status: str


class Traces:
    """Raises NotFound, Forbidden, StoreUnavailable."""

    def __init__(self, *, store: TraceStore, runs: RunStore, board: RunBoard, clock: Clock) -> None:
        self._store = store
        self._runs = runs
        self._board = board
        self._clock = clock

    async def put(self, project: Project, spans: Sequence[Span]) -> None:
        """Record spans, all or none. Raises Forbidden when one is of a run of another project."""
        for trace_id in {span.trace_id for span in spans}:
            run_id = canonical_uuid(trace_id)
            run = self._board.runs.get(run_id) or await self._runs.find(run_id)
            if run is not None and run.project_id != project.id:
                raise ForeignProject("a span is of a run of another project")
        await self._store.put(project.id, spans, now=self._clock.now())

    async def page(
        self, project: Project, which: TraceFilter, *, offset: int, limit: int
    ) -> Sequence[tuple[Trace, str]]:
        """Return traces with their status, the newest first."""
        found = await self._store.page(project.id, which, offset=offset, limit=limit)
        return [(trace, await self._status(project, trace.trace_id, trace)) for trace in found]

    async def get(self, project: Project, trace_id: str) -> WholeTrace:
        """Return a trace. Raises NotFound."""
        spans, truncated = await self._store.spans(project.id, trace_id, limit=MOST_SPANS, max_bytes=MOST_BYTES)
        if not spans:
            raise NotFound("no such trace")
        root = await self._store.root(project.id, trace_id)
        return WholeTrace(
            root=root,
            spans=link(spans),
            count=len(spans),
            errors=sum(span.error is not None for span in spans),
            truncated=truncated,
            status=await self._status(project, trace_id, root),
        )

    async def _status(self, project: Project, trace_id: str, root: Trace | None) -> str:
        """The state of the root run; of a trace without one, whether it has failed."""
        run_id = canonical_uuid(trace_id)
        run = self._board.runs.get(run_id) or await self._runs.find(run_id)
        if run is not None and run.project_id == project.id:
            return run.state.value
        if root is None:
            return "running"
        return "completed" if root.last.error is None else "failed"


def link(spans: Sequence[Span]) -> list[Span]:
    """Put the spans of one run, of which each says which one it goes on from, below a span that stands for all of them."""
    known = {span.span_id: span for span in spans}
    before = {span.span_id: previous for span in spans if (previous := _previous(span)) in known}
    beginnings = _beginnings(before)
    chains: dict[str, list[Span]] = {}
    for span in spans:
        chains.setdefault(beginnings.get(span.span_id, span.span_id), []).append(span)
    found: list[Span] = []
    for span in spans:
        first = beginnings.get(span.span_id, span.span_id)
        chain = chains[first]
        if len(chain) == 1:
            found.append(span)
            continue
        if span is chain[0]:
            found.append(_linked(first, chain))
        found.append(replace(span, parent_span_id=f"linked_{first}"))
    return found


def _previous(span: Span) -> str | None:
    if span.attributes is None:
        return None
    try:
        attributes = msgspec.json.decode(span.attributes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # a number out of range, such as 1e400
        return None
    if not isinstance(attributes, dict):
        return None
    found = next((value for key, value in attributes.items() if key.endswith(_PREVIOUS)), None)
    return found if isinstance(found, str) and found != span.span_id else None


def _beginnings(before: Mapping[str, str]) -> dict[str, str]:
    """Return where the chain of each span begins; a ring, which nobody should report, begins anywhere."""
    found: dict[str, str] = {}
    for span_id in before:
        passed: dict[str, None] = {}
        here = span_id
        while here in before and here not in passed and here not in found:
            passed[here] = None
            here = before[here]
        found |= dict.fromkeys(passed, found.get(here, here))
    return found


def _linked(first: str, chain: Sequence[Span]) -> Span:
    begun, last = chain[0], chain[-1]
    ends = [span.ended_at for span in chain if span.ended_at is not None]
    return Span(
        trace_id=begun.trace_id,
        span_id=f"linked_{first}",
        parent_span_id=begun.parent_span_id,
        name=begun.name,
        span_type=begun.span_type,
        started_at=begun.started_at,
        ended_at=max(ends, default=None),
        attributes=last.attributes,
        input=begun.input,
        output=last.output,
        error=last.error,
        initial_state=begun.initial_state,
        final_state=last.final_state,
    )
