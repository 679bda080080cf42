"""What a command has written: both streams as JSON, or one as its exact bytes.

Nothing here holds a whole stream: pieces are read, encoded and sent one after the other.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncGenerator

import msgspec

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.ranges import ranged
from dormice.api.http.replies import Reply
from dormice.api.http.replies import Stream as StreamedReply
from dormice.api.machines import wire
from dormice.api.machines.events import wants_base64
from dormice.api.machines.text import StreamDecoder
from dormice.api.services import Services
from dormice.domain.execution import Execution, Stream

_PIECE = 3 << 16
"""192 KiB: a multiple of three, so that pieces of base64 join without padding."""
_AT_ONCE = 256 << 10


async def output(call: Call, services: Services) -> ASGIApp:
    """Answer with both streams, as text or base64."""
    base64 = wants_base64(call)
    execution = await services.executions.get(call.caller, call.path["machine_id"], call.path["execution_id"])
    pieces = _document(services, execution, base64=base64)
    if execution.stdout_kept + execution.stderr_kept <= _AT_ONCE:
        return Reply(b"".join([piece async for piece in pieces]))
    return StreamedReply(pieces)


async def _document(services: Services, execution: Execution, *, base64: bool) -> AsyncGenerator[bytes, None]:
    """Yield the JSON of an OutputRecord, its two long strings in pieces."""
    head = wire.OutputRecord(
        execution_id=execution.id,
        stdout_bytes=execution.stdout_bytes,
        stderr_bytes=execution.stderr_bytes,
        stdout_truncated=wire.truncated(execution, Stream.STDOUT, services.limits),
        stderr_truncated=wire.truncated(execution, Stream.STDERR, services.limits),
    )
    yield msgspec.json.encode(head)[:-1]
    for stream, name in wire.STREAM_NAMES.items():
        yield b',"%s":"' % (f"{name}_base64" if base64 else name).encode()
        encoded = _base64(services, execution, stream) if base64 else _text(services, execution, stream)
        async for piece in encoded:
            yield piece
        yield b'"'
    yield b"}"


async def _base64(services: Services, execution: Execution, stream: Stream) -> AsyncGenerator[bytes, None]:
    async for piece in _pieces(services, execution, stream, 0, wire.kept(execution, stream)):
        yield b64encode(piece)


async def _text(services: Services, execution: Execution, stream: Stream) -> AsyncGenerator[bytes, None]:
    decoder = StreamDecoder(0, b"")
    async for piece in _pieces(services, execution, stream, 0, wire.kept(execution, stream)):
        yield msgspec.json.encode(decoder.decode(piece))[1:-1]
    yield msgspec.json.encode(decoder.decode(b"", last=True))[1:-1]


async def _pieces(
    services: Services, execution: Execution, stream: Stream, start: int, end: int
) -> AsyncGenerator[bytes, None]:
    while start < end:
        piece = await services.executions.output(execution, stream, start=start, end=min(start + _PIECE, end))
        if not piece:
            raise RuntimeError(f"{execution.id}: kept output ends at {start}, its record says {end}")
        yield piece
        start += len(piece)


async def raw_output(call: Call, services: Services, stream: Stream) -> ASGIApp:
    """Answer with the kept bytes of one stream, or a range of them."""
    execution = await services.executions.get(call.caller, call.path["machine_id"], call.path["execution_id"])
    size = wire.kept(execution, stream)
    part = ranged(call.header("Range"), call.header("If-Range"), size)
    headers = {
        **part.headers,
        "x-dormice-total-bytes": str(wire.written(execution, stream)),
        "x-dormice-truncated": "true" if wire.truncated(execution, stream, services.limits) else "false",
    }
    return StreamedReply(
        _pieces(services, execution, stream, part.start, part.end),
        status=part.status,
        media_type=b"application/octet-stream",
        headers=headers,
    )
