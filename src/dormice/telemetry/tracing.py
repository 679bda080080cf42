"""Spans of requests and executions, exported by OTLP over HTTP. Imported only where a collector is configured.

The SDK's own variables (OTEL_…) say where to and how. A thread of the SDK sends in batches; what it cannot send, or what
exceeds its queue, is lost, and nobody waits for it.

An execution's span is a child of the request that made it. That is kept in memory only: an execution that outlives a restart of
the server gets a span in a trace of its own.
"""

from __future__ import annotations

import os
from threading import Thread

from opentelemetry import context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_CERTIFICATE,
    OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)

from dormice.api.http.trace_context import TraceContext
from dormice.domain.execution import Execution, ExecutionState
from dormice.engine.observer import Observer

CLOSE_SECONDS = 2.0
_US = 1000
"""Nanoseconds in a microsecond."""


class Tracing(Observer):
    """Makes spans of what the API and the engine tell. Used on the event loop's thread only."""

    def __init__(self, version: str) -> None:
        """Read the environment and what is needed of the disk: afterwards the process may give up its rights."""
        own = Resource.create({"service.name": "dormice", "service.version": version})
        self._provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        _vouch_for_collector()
        self._exporter = OTLPSpanExporter()
        self._tracer = self._provider.get_tracer("dormice", version)
        self._parents: dict[str, SpanContext] = {}
        """The spans of the requests that made the executions that have not ended."""

    def start(self) -> None:
        """Begin to export, in a thread."""
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))

    def close(self) -> None:
        """Export what is left, within CLOSE_SECONDS; then leave the rest."""
        last = Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(CLOSE_SECONDS)

    # The API's tracer.

    def begin(self, method: str, parent: TraceContext | None) -> _RequestSpan:
        """Begin the span of a request; what is called in the present context meanwhile is inside it."""
        within = context.Context() if parent is None else set_span_in_context(_remote(parent), context.Context())
        return _RequestSpan(method, self._tracer.start_span(method, within, SpanKind.SERVER))

    # The engine's observer.

    def created(self, execution: Execution) -> None:
        """Remember by which request."""
        span = get_current_span().get_span_context()
        if span.is_valid:
            self._parents[execution.id] = span

    def finished(self, execution: Execution) -> None:
        """Make its span, from creation to end."""
        parent = self._parents.pop(execution.id, INVALID_SPAN_CONTEXT)
        within = set_span_in_context(NonRecordingSpan(parent), context.Context())
        span = self._tracer.start_span("execution", within, start_time=execution.created_at * _US)
        if span.is_recording():
            if execution.started_at is not None:
                span.add_event("started", timestamp=execution.started_at * _US)
            span.set_attributes(_attributes(execution))
            if execution.state in (ExecutionState.FAILED, ExecutionState.EXPIRED):
                span.set_status(StatusCode.ERROR)
        span.end((execution.completed_at or execution.created_at) * _US)


class _RequestSpan:
    def __init__(self, method: str, span: Span) -> None:
        self._method = method
        self._span = span
        self._token = context.attach(set_span_in_context(span))

    @property
    def trace_id(self) -> str:
        return format_trace_id(self._span.get_span_context().trace_id)

    def end(self, route: str, status: int, request_id: str) -> None:
        context.detach(self._token)
        span = self._span
        if span.is_recording():
            span.set_attributes({"http.request.method": self._method, "dormice.request_id": request_id})
            if route:
                span.update_name(f"{self._method} {route}")
                span.set_attribute("http.route", route)
            if status:
                span.set_attribute("http.response.status_code", status)
            if not 0 < status < 500:
                span.set_status(StatusCode.ERROR)
        span.end()


def _vouch_for_collector() -> None:
    """Have the exporter believe those whom OpenTelemetry's variable names, on hosts that name others for everything else as well.

    The library that it asks over HTTP puts its own variables before what it is given.
    """
    named = (OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE, OTEL_EXPORTER_OTLP_CERTIFICATE)
    if certificate := next(filter(None, map(os.environ.get, named)), None):
        os.environ["REQUESTS_CA_BUNDLE"] = certificate


def _remote(parent: TraceContext) -> NonRecordingSpan:
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    state = TraceState.from_header([parent.state])
    trace_id, span_id = int(parent.trace_id, 16), int(parent.span_id, 16)
    return NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags, trace_state=state))


def _attributes(execution: Execution) -> dict[str, str | int]:
    """What its record says, without what the tenant wrote: a command line may hold a secret."""
    found: dict[str, str | int] = {
        "dormice.execution_id": execution.id,
        "dormice.machine_id": execution.machine_id,
        "dormice.organization_id": execution.organization_id,
        "dormice.status": execution.state.value,
        "dormice.stdout_bytes": execution.stdout_bytes,
        "dormice.stderr_bytes": execution.stderr_bytes,
    }
    if execution.error_code is not None:
        found["dormice.error_code"] = execution.error_code.value
    if execution.exit_code is not None:
        found["dormice.exit_code"] = execution.exit_code
    if execution.signal is not None:
        found["dormice.signal"] = execution.signal
    return found
