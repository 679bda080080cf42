"""The log of an execution: merging what is written, reading it by sequence and by byte offset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apsw

from dormice.domain.execution import Chunk, Execution, LogEntry, Stream
from dormice.store.sqlite import rows, statements

_SQL = statements.load("log.sql")

APPEND = _SQL["append"]
ENTRY_BYTES = 64 * 1024
"""Chunks that follow one another in one report share an entry up to this size."""


def merged(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Join neighbours of one stream, in order; an entry is at most ENTRY_BYTES unless one chunk is larger."""
    parts: list[bytes] = []
    first: Chunk | None = None
    size = 0
    for chunk in chunks:
        follows = first is not None and chunk.stream is first.stream and chunk.offset == first.offset + size
        if first is not None and not (follows and size + len(chunk.data) <= ENTRY_BYTES):
            yield Chunk(first.stream, first.offset, b"".join(parts))
            first = None
        if first is None:
            first, parts, size = chunk, [], 0
        parts.append(chunk.data)
        size += len(chunk.data)
    if first is not None:
        yield Chunk(first.stream, first.offset, b"".join(parts))


def entries(db: apsw.Connection, execution: Execution, after: int, limit: int, max_bytes: int) -> list[LogEntry]:
    """Entries above a sequence, until `max_bytes` of output are there; none beyond what retention has begun to delete."""
    found: list[LogEntry] = []
    size = 0
    for row in db.execute(_SQL["after"], (execution.number, after, limit)):
        entry = rows.entry(row)
        if entry.sequence != after + len(found) + 1:
            break
        found.append(entry)
        size += len(entry.data)
        if size >= max_bytes:
            break
    return found


def trim(db: apsw.Connection, execution: Execution, scrollback: int) -> None:
    """Delete pieces of standard output that lie before its last `scrollback` bytes."""
    db.execute(_SQL["trim"], (execution.number, execution.stdout_kept - scrollback - ENTRY_BYTES))


def output(db: apsw.Connection, execution: Execution, stream: Stream, start: int, end: int) -> bytes:
    """The kept bytes of a stream between two offsets; none beyond what retention has begun to delete."""
    pieces: list[bytes] = []
    at = start
    for offset, data in db.execute(_SQL["output"], (execution.number, stream.value, start, end)):
        if offset > at:
            break
        pieces.append(data[max(0, start - offset) : max(0, end - offset)])
        at = offset + len(data)
    return b"".join(pieces)
