"""Routes of traces: what workers report of their work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Raw, Struct, field

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Operation, Parameter
from dormice.api.http.replies import json_reply
from dormice.api.services import WorkflowServices
from dormice.api.workflows import parameters, wire
from dormice.api.workflows.door import Door, bad, empty
from dormice.domain import documents
from dormice.domain.limits import Limits
from dormice.domain.moments import rfc3339
from dormice.engine.orders import Caller
from dormice.store.projects import Project
from dormice.store.traces import Span, Trace, TraceFilter

_PAGE = 50
_SPAN_ID_CHARS = 128


class SpanReport(Struct, kw_only=True):
    """A piece of work that a worker has done."""

    trace_id: str
    span_id: str
    name: str
    span_type: str
    started_at: str
    ended_at: str | None = None
    parent_span_id: str | None = None
    attributes: Raw = field(default_factory=documents.nothing)
    events: Raw = field(default_factory=documents.nothing)
    input: Raw = field(default_factory=documents.nothing)
    output: Raw = field(default_factory=documents.nothing)
    error: Raw = field(default_factory=documents.nothing)
    initial_state: Raw = field(default_factory=documents.nothing)
    final_state: Raw = field(default_factory=documents.nothing)


class SpanBatch(Struct, kw_only=True):
    """Spans; one that came before is replaced."""

    spans: list[SpanReport]


class SpanRecord(SpanReport, kw_only=True):
    """A span. One whose id begins with `linked_` stands for several spans of one run, which each went on from the one before."""

    duration_ms: float | None


class TraceRecord(Struct, kw_only=True):
    """A trace by its root spans."""

    trace_id: str
    root_span_type: str
    root_span_name: str
    started_at: str
    ended_at: str | None
    duration_ms: float | None
    input: Raw
    output: Raw
    root_error: Raw
    status: Annotated[str, Meta(description="The state of the root run.")]


class TraceList(Struct, kw_only=True):
    """Traces, the newest first."""

    traces: list[TraceRecord]


class WholeTraceRecord(Struct, kw_only=True):
    """A trace with its spans, by their start."""

    trace_id: str
    spans: list[SpanRecord]
    trace_start_time: str
    trace_end_time: str | None
    span_count: int
    error_count: int
    root_span_name: str | None
    status: str
    truncated: Annotated[bool, Meta(description="Whether there are more spans than one answer has.")]


_BATCH = BodyDecoder(SpanBatch)


class TraceRoutes:
    """Handlers over traces."""

    def __init__(self, services: WorkflowServices, limits: Limits, door: Door) -> None:
        self._traces = services.traces
        self._limits = limits
        self._door = door

    async def put(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /internal/spans/batch."""
        body = _BATCH.decode(call.header("Content-Type"), await call.body(self._limits.workflow_body_bytes))
        if len(body.spans) > self._limits.spans_per_request:
            raise bad(
                f"spans must have at most {self._limits.spans_per_request} entries (spans_per_request)", "body.spans"
            )
        if body.spans:
            await self._traces.put(project, [_span(report) for report in body.spans])
        return empty()

    async def page(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/traces."""
        which = TraceFilter(
            root_span_type=parameters.text(call, "root_span_type"),
            root_span_name=parameters.text(call, "root_span_name"),
            has_error=call.boolean("has_error") if parameters.text(call, "has_error") else None,
            since=parameters.moment(call, "start_time"),
            until=parameters.moment(call, "end_time"),
        )
        limit = parameters.page_size(call, _PAGE)
        found = await self._traces.page(project, which, offset=parameters.offset(call), limit=limit)
        return json_reply(TraceList(traces=[_trace(trace, status) for trace, status in found]))

    async def get(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/traces/{trace_id}."""
        identity = parameters.trace_id(call.path["trace_id"], "path.trace_id")
        found = await self._traces.get(project, identity)
        ends = [span.ended_at for span in found.spans if span.ended_at is not None]
        return json_reply(
            WholeTraceRecord(
                trace_id=identity,
                spans=[_record(span) for span in found.spans],
                trace_start_time=rfc3339(min(span.started_at for span in found.spans)),
                trace_end_time=wire.time(max(ends, default=None)),
                span_count=found.count,
                error_count=found.errors,
                root_span_name=None if found.root is None else found.root.first.name,
                status=found.status,
                truncated=found.truncated,
            )
        )

    def operations(self) -> Sequence[Operation]:
        """Return the routes."""
        route = self._door.route
        words = {"type": "string"}
        return [
            route(
                "traces",
                "putSpans",
                "POST",
                "/internal/spans/batch",
                "Report spans",
                self.put,
                body=SpanBatch,
                description="All or none.",
            ),
            route(
                "traces",
                "listTraces",
                "GET",
                "/api/v1/traces",
                "List traces",
                self.page,
                TraceList,
                description="Of runs; those of what else workers do (`custom`) when their type or name is asked for.",
                parameters=[
                    parameters.START,
                    parameters.END,
                    Parameter("root_span_type", "query", words, "Those whose root span is of this type."),
                    Parameter("root_span_name", "query", words, "Those whose root span has this name."),
                    Parameter("has_error", "query", {"type": "boolean"}, "Those that have failed, or have not."),
                    parameters.LIMIT,
                    parameters.OFFSET,
                ],
            ),
            route("traces", "getTrace", "GET", "/api/v1/traces/{trace_id}", "Read a trace", self.get, WholeTraceRecord),
        ]


def _span(report: SpanReport) -> Span:
    if not 0 < len(report.span_id) <= _SPAN_ID_CHARS:
        raise bad(f"span_id must have from 1 to {_SPAN_ID_CHARS} characters", "body.spans.span_id")
    return Span(
        trace_id=parameters.trace_id(report.trace_id, "body.spans.trace_id"),
        span_id=report.span_id,
        parent_span_id=report.parent_span_id or None,
        name=report.name,
        span_type=report.span_type,
        started_at=parameters.moment_of(report.started_at, "body.spans.started_at"),
        ended_at=None if report.ended_at is None else parameters.moment_of(report.ended_at, "body.spans.ended_at"),
        attributes=documents.json(report.attributes),
        events=documents.json(report.events),
        input=documents.json(report.input),
        output=documents.json(report.output),
        error=documents.json(report.error),
        initial_state=documents.json(report.initial_state),
        final_state=documents.json(report.final_state),
    )


def _record(span: Span) -> SpanRecord:
    return SpanRecord(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        name=span.name,
        span_type=span.span_type,
        started_at=rfc3339(span.started_at),
        ended_at=wire.time(span.ended_at),
        duration_ms=_duration(span.started_at, span.ended_at),
        attributes=documents.raw(span.attributes),
        events=documents.raw(span.events),
        input=documents.raw(span.input),
        output=documents.raw(span.output),
        error=documents.raw(span.error),
        initial_state=documents.raw(span.initial_state),
        final_state=documents.raw(span.final_state),
    )


def _trace(trace: Trace, status: str) -> TraceRecord:
    first, last = trace.first, trace.last
    return TraceRecord(
        trace_id=trace.trace_id,
        root_span_type=first.span_type,
        root_span_name=first.name,
        started_at=rfc3339(first.started_at),
        ended_at=wire.time(last.ended_at),
        duration_ms=_duration(first.started_at, last.ended_at),
        input=documents.raw(first.input),
        output=documents.raw(last.output),
        root_error=documents.raw(last.error),
        status=status,
    )


def _duration(started_at: int, ended_at: int | None) -> float | None:
    return None if ended_at is None else (ended_at - started_at) / 1000
