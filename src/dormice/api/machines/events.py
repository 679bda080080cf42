"""An execution's log as pages and as a stream."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncGenerator, Sequence

import msgspec

from dormice.api.http import sse
from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.errors import Fault, InvalidRequest
from dormice.api.http.pagination import page_limit, sequence_cursor
from dormice.api.http.replies import Stream as StreamedReply
from dormice.api.http.replies import json_reply
from dormice.api.machine_services import Executions
from dormice.api.machines import wire
from dormice.api.machines.text import LOOK_BACK, StreamDecoder
from dormice.api.services import Services
from dormice.domain.execution import Execution, LogEntry, Stream

_AT_ONCE = 256 << 10
"""Bytes of output that are rendered in one go."""


def wants_base64(call: Call) -> bool:
    """Whether output is asked for as base64. Raises Invalid for an encoding that is none of ours."""
    encoding = call.query.get("encoding", "text")
    if encoding not in {"text", "base64"}:
        raise InvalidRequest([Fault("encoding must be base64 or text", "query.encoding")])
    return encoding == "base64"


def wants_event_stream(call: Call) -> bool:
    """Whether the client asks for server-sent events."""
    return "text/event-stream" in (call.header("Accept") or "")


class EventRenderer:
    """Turns log entries into records, in order, keeping what text decoding has to remember."""

    def __init__(self, executions: Executions, *, base64: bool) -> None:
        self._executions = executions
        self._base64 = base64
        self._decoders: dict[Stream, StreamDecoder] = {}

    async def render(self, execution: Execution, entries: Sequence[LogEntry]) -> list[wire.EventRecord]:
        """Return the records of these entries, which follow those of the last call."""
        return [
            wire.lifecycle_event(entry) if entry.stream is None else await self._output(execution, entry, entry.stream)
            for entry in entries
        ]

    async def _output(self, execution: Execution, entry: LogEntry, stream: Stream) -> wire.EventRecord:
        record = wire.EventRecord(sequence=entry.sequence, type=wire.STREAM_NAMES[stream], at=wire.time(entry.at))
        if self._base64:
            record.chunk_base64 = b64encode(entry.data).decode("ascii")
            record.offset = entry.offset
            return record
        decoder = self._decoders.get(stream)
        if decoder is None or decoder.offset != entry.offset:
            decoder = self._decoders[stream] = await self._decoder_at(execution, stream, entry.offset)
        last = execution.terminal and entry.offset + len(entry.data) >= wire.kept(execution, stream)
        record.chunk = decoder.decode(entry.data, last=last)
        return record

    async def _decoder_at(self, execution: Execution, stream: Stream, offset: int) -> StreamDecoder:
        start = max(0, offset - LOOK_BACK)
        before = await self._executions.output(execution, stream, start=start, end=offset) if offset else b""
        return StreamDecoder(offset, before)


async def events(call: Call, services: Services) -> ASGIApp:
    """Answer with a page of the log, or with a stream of it where the client accepts one."""
    renderer = EventRenderer(services.executions, base64=wants_base64(call))
    if wants_event_stream(call):
        return await _stream(call, services, renderer)
    after = sequence_cursor(call.query.get("cursor"), "query.cursor")
    execution, entries = await services.executions.entries(
        call.caller,
        call.path["machine_id"],
        call.path["execution_id"],
        after=after,
        limit=page_limit(call, services.limits.page_max),
        max_bytes=services.limits.events_page_bytes,
        wait_ms=call.wait_ms(),
    )
    more = bool(entries) and (not execution.terminal or entries[-1].sequence < execution.last_sequence)
    cursor = str(entries[-1].sequence) if more else None
    if sum(len(entry.data) for entry in entries) <= _AT_ONCE:
        return json_reply(wire.EventPage(items=await renderer.render(execution, entries), next_cursor=cursor))
    return StreamedReply(_document(renderer, execution, entries, cursor))


async def _document(
    renderer: EventRenderer, execution: Execution, entries: Sequence[LogEntry], cursor: str | None
) -> AsyncGenerator[bytes, None]:
    """Yield the JSON of an EventPage in pieces: text of a whole page at once would hold up everybody else."""
    before = b'{"items":['
    for entry in entries:
        [record] = await renderer.render(execution, [entry])
        yield before + msgspec.json.encode(record)
        before = b","
    yield b"]}" if cursor is None else b'],"next_cursor":"%s"}' % cursor.encode()


async def _stream(call: Call, services: Services, renderer: EventRenderer) -> ASGIApp:
    if (resumed := call.header("Last-Event-ID")) is not None:
        after = sequence_cursor(resumed, "header.Last-Event-ID")
    else:
        after = sequence_cursor(call.query.get("cursor"), "query.cursor")
    # Unknown ids are told by status, as long as there still is one.
    await services.executions.get(call.caller, call.path["machine_id"], call.path["execution_id"])
    return sse.event_stream(_follow(call, services, renderer, after))


async def _follow(call: Call, services: Services, renderer: EventRenderer, after: int) -> AsyncGenerator[bytes, None]:
    """Yield frames until the last entry of an ended execution."""
    while True:
        execution, entries = await services.executions.entries(
            call.caller,
            call.path["machine_id"],
            call.path["execution_id"],
            after=after,
            limit=services.limits.page_max,
            max_bytes=_AT_ONCE,
            wait_ms=sse.KEEP_ALIVE_MS,
        )
        if entries:
            after = entries[-1].sequence
            records = await renderer.render(execution, entries)
            yield b"".join(
                sse.frame(record.type, msgspec.json.encode(record), identity=record.sequence) for record in records
            )
        if execution.terminal and after >= execution.last_sequence:
            return
        if not entries:
            if services.executions.closing:
                return
            yield sse.KEEP_ALIVE
