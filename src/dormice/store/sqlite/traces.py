"""Traces: spans by the root run that they belong to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import apsw
import msgspec
from msgspec import Raw, Struct

from dormice.domain import documents
from dormice.domain.execution import Micros
from dormice.store.sqlite import statements
from dormice.store.sqlite.reader import SHORT_BYTES, Reader
from dormice.store.sqlite.writer import Writer
from dormice.store.traces import Span, Trace, TraceFilter

_SQL = statements.load("traces.sql")
_SHORT_SPANS = 8
_NOTHING = documents.nothing()


class _Document(Struct, omit_defaults=True, kw_only=True):
    """What of a span is kept together."""

    attributes: Raw = _NOTHING
    events: Raw = _NOTHING
    input: Raw = _NOTHING
    output: Raw = _NOTHING
    error: Raw = _NOTHING
    initial_state: Raw = _NOTHING
    final_state: Raw = _NOTHING


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Document).decode


class SqliteTraces:
    """TraceStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def put(self, project_id: str, spans: Sequence[Span], *, now: Micros) -> None:
        documents = [_document(span) for span in spans]
        short = len(spans) <= _SHORT_SPANS and sum(map(len, documents)) <= SHORT_BYTES
        await self._writer.run(
            partial(_put, project_id=project_id, spans=spans, documents=documents, now=now), short=short
        )

    async def page(self, project_id: str, which: TraceFilter, *, offset: int, limit: int) -> list[Trace]:
        return await self._reader.scan(partial(_page, project_id=project_id, which=which, offset=offset, limit=limit))

    async def root(self, project_id: str, trace_id: str) -> Trace | None:
        return await self._reader.scan(lambda db: _root(db, project_id, trace_id))

    async def spans(self, project_id: str, trace_id: str, *, limit: int, max_bytes: int) -> tuple[list[Span], bool]:
        return await self._reader.scan(
            partial(_spans, project_id=project_id, trace_id=trace_id, limit=limit, max_bytes=max_bytes)
        )


def _put(db: apsw.Connection, project_id: str, spans: Sequence[Span], documents: Sequence[bytes], now: Micros) -> None:
    numbers: dict[str, int] = {}
    for trace_id in {span.trace_id for span in spans}:
        numbers[trace_id] = db.execute(_SQL["insert"], (project_id, trace_id, now)).get
    db.executemany(
        _SQL["put"],
        [
            (
                numbers[span.trace_id],
                span.span_id,
                span.parent_span_id,
                span.name,
                span.span_type,
                span.started_at,
                span.ended_at,
                document,
            )
            for span, document in zip(spans, documents, strict=True)
        ],
    )
    for span in spans:
        if span.parent_span_id is None:
            number = numbers[span.trace_id]
            db.execute(_SQL["set_first"], (number, span.span_id, span.span_type, span.name, span.started_at))
            db.execute(_SQL["set_last"], (number, span.span_id, span.error is not None, span.started_at))


def _page(db: apsw.Connection, project_id: str, which: TraceFilter, offset: int, limit: int) -> list[Trace]:
    since = 0 if which.since is None else which.since
    until = sys.maxsize if which.until is None else which.until
    values: tuple[Any, ...] = (project_id, since, until, limit, offset, which.has_error)
    if which.root_span_name is not None:
        name, values = "newest_of_name", (*values, which.root_span_name, which.root_span_type)
    elif which.root_span_type is not None:
        name, values = "newest_of_type", (*values, which.root_span_type)
    else:
        name = "newest_failed" if which.has_error else "newest"
    rows: list[Any] = db.execute(_SQL[name], values).fetchall()
    found = [_root(db, project_id, trace_id) for (trace_id,) in rows]
    return [trace for trace in found if trace is not None]


def _root(db: apsw.Connection, project_id: str, trace_id: str) -> Trace | None:
    row = db.execute(_SQL["root"], (project_id, trace_id)).fetchone()
    return None if row is None else Trace(trace_id=row[0], first=_span(row[0], row[1:8]), last=_span(row[0], row[8:]))


def _spans(db: apsw.Connection, project_id: str, trace_id: str, limit: int, max_bytes: int) -> tuple[list[Span], bool]:
    found: list[Span] = []
    size = 0
    for row in db.execute(_SQL["spans"], (project_id, trace_id, limit + 1)):
        size += len(row[6])
        if len(found) == limit or (found and size > max_bytes):
            return found, True
        found.append(_span(trace_id, row))
    return found, False


def _span(trace_id: str, row: tuple[Any, ...]) -> Span:
    span_id, parent_span_id, name, span_type, started_at, ended_at, document = row
    rest = _decode(document)
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=parent_span_id,
        name=name,
        span_type=span_type,
        started_at=started_at,
        ended_at=ended_at,
        **{field: documents.json(getattr(rest, field)) for field in _Document.__struct_fields__},
    )


def _document(span: Span) -> bytes:
    return _encode(_Document(**{field: documents.raw(getattr(span, field)) for field in _Document.__struct_fields__}))
