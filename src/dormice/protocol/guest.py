"""Frames between the node and process 1 of a machine, as `guest/PROTOCOL.md` lays them down. Pure: no I/O.

`encode` turns a frame into bytes, `GuestDecoder` turns what a guest sends into frames. Whatever a machine sends is
hostile until it has passed here; one byte out of order raises `ProtocolViolation`, and the connection is over. What
follows from the frames' order (offsets without gaps, one EXITED per execution) is the node's to check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum, IntFlag
from struct import Struct as Layout
from typing import Final, Generic, TypeVar

from msgspec import Struct

from dormice.domain.execution import Stream

VERSION: Final = 1
NO_ID: Final = bytes(16)
OUTPUT_FRAME_BYTES: Final = 65_536
"""The most output that one OUTPUT frame carries."""
STDIN_FRAME_BYTES: Final = 65_536
STDIN_CREDIT_BYTES: Final = 65_536
"""How far stdin may be sent beyond what the guest has reported as written."""
STREAM_WINDOW_BYTES: Final = 262_144
"""The most unacknowledged output that a guest holds per stream."""
KNOWN_EXECUTIONS: Final = 4_000
"""The most executions that a guest knows at a time."""
MOST_BYTES: Final = (1 << 63) - 1
"""Counts, offsets and times above this are lies: nothing behind us could hold them."""
START_BYTES: Final = 2_097_152
"""The largest payload towards the guest: a START with its strings."""


class ProtocolViolation(Exception):
    """The other side broke the protocol; nothing that it sent afterwards is to be believed."""


class How(IntEnum):
    """How an execution ended."""

    EXITED = 1
    SIGNALLED = 2
    NOT_FOUND = 3
    PERMISSION = 4
    CWD = 5
    SPAWN_FAILED = 6
    INTERRUPTED = 7


class Reason(IntEnum):
    """Why a START was refused."""

    BOOT = 1
    CANCELLED = 2
    RESOURCES = 3
    STOPPING = 4


class End(IntFlag):
    """What else is true of an EXITED execution."""

    NONE = 0
    TIMEOUT = 1
    CANCEL = 2
    DRAIN = 4
    """The drain grace ran out: a child still holds a pipe."""
    OOM = 8


# Towards the guest


class Hello(Struct, frozen=True, gc=False):
    """First frame of a connection. `version` is the highest the node speaks; a higher epoch takes the guest over."""

    epoch: int
    version: int = VERSION


class Start(Struct, frozen=True, kw_only=True):
    """Start an execution, or attach to it when the guest has it. Strings carry any bytes by surrogateescape."""

    execution: bytes
    boot_id: bytes
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    kept_limit: int
    """Bytes sent of each stream; the rest is counted."""
    timeout_ms: int = 0
    """From STARTED; 0 is none."""
    drain_grace_ms: int = 200
    stdin_open: bool = False
    """STDIN frames follow; otherwise stdin is at its end from the start."""

    def __repr__(self) -> str:
        """Without the secrets that argv and env may hold."""
        return f"Start(execution={self.execution.hex()})"


class Stdin(Struct, frozen=True, gc=False):
    """Bytes for an execution's stdin at their offset in it."""

    execution: bytes
    offset: int
    data: bytes
    eof: bool = False

    def __repr__(self) -> str:
        """Without the data, a secret."""
        return f"Stdin(execution={self.execution.hex()}, offset={self.offset}, size={len(self.data)}, eof={self.eof})"


class Ack(Struct, frozen=True, gc=False):
    """Output of a stream is durable up to `offset`."""

    execution: bytes
    stream: Stream
    offset: int


class Forget(Struct, frozen=True, gc=False):
    """The execution's EXITED is durable."""

    execution: bytes


class Cancel(Struct, frozen=True, gc=False):
    """SIGTERM, and SIGKILL after `grace_ms`. Of an unknown execution: refuse its start."""

    execution: bytes
    grace_ms: int


class Stop(Struct, frozen=True, gc=False):
    """End everything in the machine and write its files to disk."""

    grace_ms: int


class Ping(Struct, frozen=True, gc=False):
    """Ask for a PONG with the same token."""

    token: int


class Poweroff(Struct, frozen=True, gc=False):
    """Process 1 ends now."""


# From the guest


class Welcome(Struct, frozen=True, gc=False):
    """The guest follows this connection; `executions` are those it knows."""

    boot_id: bytes
    executions: tuple[bytes, ...]
    version: int = VERSION


class Stale(Struct, frozen=True, gc=False):
    """The guest follows a connection of this epoch, which is not lower than the one offered."""

    epoch: int


class Started(Struct, frozen=True, gc=False):
    """The exec succeeded, at nanoseconds since the Unix epoch by the guest's clock."""

    execution: bytes
    at: int


class Output(Struct, frozen=True, gc=False):
    """Output of a stream at its offset."""

    execution: bytes
    stream: Stream
    offset: int
    data: bytes


class Exited(Struct, frozen=True, kw_only=True, gc=False):
    """The one end of an execution. Times in nanoseconds since the Unix epoch by the guest's clock."""

    execution: bytes
    how: How
    code: int
    """Exit code or signal number, as `how` says."""
    errno: int = 0
    """Why it was not started, or 0."""
    started_at: int = 0
    """0 when it was not started."""
    ended_at: int
    stdout_total: int = 0
    stderr_total: int = 0
    stdout_kept: int = 0
    stderr_kept: int = 0
    flags: End = End.NONE


class Refused(Struct, frozen=True, gc=False):
    """The START was not done."""

    execution: bytes
    reason: Reason


class StdinState(Struct, frozen=True, gc=False):
    """Stdin up to `written` has reached the command, or nobody will ever read it (`closed`)."""

    execution: bytes
    written: int
    closed: bool


class Stopped(Struct, frozen=True, gc=False):
    """Everything in the machine has ended, was reported, and its files are on disk."""


class Pong(Struct, frozen=True, gc=False):
    """The answer to PING."""

    token: int


GuestFrame = Welcome | Stale | Started | Output | Exited | Refused | StdinState | Stopped | Pong
NodeFrame = Hello | Start | Stdin | Ack | Forget | Cancel | Stop | Ping | Poweroff

_HEADER = Layout("<IBBH16s")
_HELLO = Layout("<IQ")
_START = Layout("<16sQQI")
_OFFSET = Layout("<Q")
_ACK = Layout("<BQ")
_MILLIS = Layout("<I")
_COUNT = Layout("<I")
_WELCOME = Layout("<I16sI")
_EXITED = Layout("<BiIQQQQQQ")
_STREAMS = {1: Stream.STDOUT, 2: Stream.STDERR}
_HOWS = {int(how): how for how in How}
_REASONS = {int(reason): reason for reason in Reason}
_NOT_STARTED = frozenset({How.NOT_FOUND, How.PERMISSION, How.CWD, How.SPAWN_FAILED})

# Encoding


def _head(kind: int, flags: int, size: int, execution: bytes = NO_ID) -> bytes:
    return _HEADER.pack(size, kind, flags, 0, execution)


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise ValueError("a string with a NUL byte cannot be sent to a guest")
    return _COUNT.pack(len(raw)) + raw


def _start(frame: Start) -> bytes:
    if not frame.argv:
        raise ValueError("an execution needs at least one argument")
    if any(not key or "=" in key for key in frame.env):
        raise ValueError("the name of an environment variable is neither empty nor holds '='")
    parts = [_START.pack(frame.boot_id, frame.timeout_ms, frame.kept_limit, frame.drain_grace_ms), _text(frame.cwd)]
    parts.append(_COUNT.pack(len(frame.argv)))
    parts.extend(map(_text, frame.argv))
    parts.append(_COUNT.pack(len(frame.env)))
    parts.extend(_text(f"{key}={value}") for key, value in frame.env.items())
    payload = b"".join(parts)
    if len(payload) > START_BYTES:
        raise ValueError(f"argv and environment are {len(payload)} bytes, above {START_BYTES}")
    return _head(2, frame.stdin_open, len(payload), frame.execution) + payload


def _stdin(frame: Stdin) -> bytes:
    if len(frame.data) > STDIN_FRAME_BYTES:
        raise ValueError(f"{len(frame.data)} bytes in one STDIN frame, above {STDIN_FRAME_BYTES}")
    return _head(3, frame.eof, 8 + len(frame.data), frame.execution) + _OFFSET.pack(frame.offset) + frame.data


def _exited(frame: Exited) -> bytes:
    body = _EXITED.pack(
        frame.how,
        frame.code,
        frame.errno,
        frame.started_at,
        frame.ended_at,
        frame.stdout_total,
        frame.stderr_total,
        frame.stdout_kept,
        frame.stderr_kept,
    )
    return _head(69, frame.flags, len(body), frame.execution) + body


def _welcome(frame: Welcome) -> bytes:
    ids = b"".join(frame.executions)
    return (
        _head(65, 0, _WELCOME.size + len(ids))
        + _WELCOME.pack(frame.version, frame.boot_id, len(frame.executions))
        + ids
    )


def _output(frame: Output) -> bytes:
    return _head(68, 0, 9 + len(frame.data), frame.execution) + _ACK.pack(frame.stream, frame.offset) + frame.data


_ENCODERS: Final[Mapping[type, Callable[..., bytes]]] = {
    Hello: lambda f: _head(1, 0, 12) + _HELLO.pack(f.version, f.epoch),
    Start: _start,
    Stdin: _stdin,
    Ack: lambda f: _head(4, 0, 9, f.execution) + _ACK.pack(f.stream, f.offset),
    Forget: lambda f: _head(5, 0, 0, f.execution),
    Cancel: lambda f: _head(6, 0, 4, f.execution) + _MILLIS.pack(f.grace_ms),
    Stop: lambda f: _head(7, 0, 4) + _MILLIS.pack(f.grace_ms),
    Ping: lambda f: _head(8, 0, 8) + _OFFSET.pack(f.token),
    Poweroff: lambda _: _head(9, 0, 0),
    Welcome: _welcome,
    Stale: lambda f: _head(66, 0, 8) + _OFFSET.pack(f.epoch),
    Started: lambda f: _head(67, 0, 8, f.execution) + _OFFSET.pack(f.at),
    Output: _output,
    Exited: _exited,
    Refused: lambda f: _head(70, 0, 1, f.execution) + bytes((f.reason,)),
    StdinState: lambda f: _head(71, f.closed, 8, f.execution) + _OFFSET.pack(f.written),
    Stopped: lambda _: _head(72, 0, 0),
    Pong: lambda f: _head(73, 0, 8) + _OFFSET.pack(f.token),
}


def encode(frame: NodeFrame | GuestFrame) -> bytes:
    """The bytes of a frame. Raises ValueError (or struct.error) on values that the wire cannot carry."""
    return _ENCODERS[type(frame)](frame)


# Decoding. A decoder gets (execution, flags, payload); size, flags and id have been checked against its rule.

_Body = Callable[[bytes, int, memoryview], "GuestFrame | NodeFrame"]


class _Rule(Struct, frozen=True):
    smallest: int
    largest: int
    flags: int
    """The flag bits that may be set."""
    named: bool
    """Whether the frame names an execution."""
    decode: _Body


def _decode_welcome(_: bytes, __: int, body: memoryview) -> Welcome:
    version, boot_id, count = _WELCOME.unpack_from(body)
    if version != VERSION:
        raise ProtocolViolation(f"WELCOME with version {version}")
    if len(body) != _WELCOME.size + 16 * count:
        raise ProtocolViolation("WELCOME with a wrong count of executions")
    ids = body[_WELCOME.size :]
    executions = tuple(bytes(ids[at : at + 16]) for at in range(0, len(ids), 16))
    if len(set(executions)) != count or NO_ID in executions:
        raise ProtocolViolation("WELCOME names an execution twice, or none")
    return Welcome(boot_id, executions)


def _stream(number: int) -> Stream:
    stream = _STREAMS.get(number)
    if stream is None:
        raise ProtocolViolation(f"stream {number}")
    return stream


def _decode_output(execution: bytes, _: int, body: memoryview) -> Output:
    number, offset = _ACK.unpack_from(body)
    if offset > MOST_BYTES:
        raise ProtocolViolation(f"OUTPUT at offset {offset}")
    return Output(execution, _stream(number), offset, bytes(body[9:]))


def _decode_exited(execution: bytes, flags: int, body: memoryview) -> Exited:
    how_number, code, errno, started_at, ended_at, out, err, out_kept, err_kept = _EXITED.unpack(body)
    how = _HOWS.get(how_number)
    if how is None:
        raise ProtocolViolation(f"EXITED with how {how_number}")
    if out_kept > out or err_kept > err or max(out, err) > MOST_BYTES:
        raise ProtocolViolation("EXITED with more output kept than there was, or more than there can be")
    lowest, highest = (0, 255) if how is How.EXITED else (1, 64) if how is How.SIGNALLED else (0, 64)
    if not lowest <= code <= highest or (how in _NOT_STARTED and (code or started_at or out or err)):
        raise ProtocolViolation(f"EXITED as {how.name} with what cannot be")
    if how in (How.EXITED, How.SIGNALLED) and not started_at:
        raise ProtocolViolation(f"EXITED as {how.name} without a start")
    return Exited(
        execution=execution,
        how=how,
        code=code,
        errno=errno,
        started_at=started_at,
        ended_at=ended_at,
        stdout_total=out,
        stderr_total=err,
        stdout_kept=out_kept,
        stderr_kept=err_kept,
        flags=End(flags),
    )


def _decode_refused(execution: bytes, _: int, body: memoryview) -> Refused:
    reason = _REASONS.get(body[0])
    if reason is None:
        raise ProtocolViolation(f"REFUSED with reason {body[0]}")
    return Refused(execution, reason)


def _number(body: memoryview) -> int:
    value: int = _OFFSET.unpack_from(body)[0]
    return value


def _claim(body: memoryview) -> int:
    value = _number(body)
    if value > MOST_BYTES:
        raise ProtocolViolation(f"a number of {value}")
    return value


_FROM_GUEST: Final[Mapping[int, _Rule]] = {
    65: _Rule(24, 24 + 16 * KNOWN_EXECUTIONS, 0, False, _decode_welcome),
    66: _Rule(8, 8, 0, False, lambda _, __, b: Stale(_number(b))),
    67: _Rule(8, 8, 0, True, lambda i, _, b: Started(i, _claim(b))),
    68: _Rule(10, 9 + OUTPUT_FRAME_BYTES, 0, True, _decode_output),
    69: _Rule(_EXITED.size, _EXITED.size, 15, True, _decode_exited),
    70: _Rule(1, 1, 0, True, _decode_refused),
    71: _Rule(8, 8, 1, True, lambda i, f, b: StdinState(i, _claim(b), f == 1)),
    72: _Rule(0, 0, 0, False, lambda _, __, ___: Stopped()),
    73: _Rule(8, 8, 0, False, lambda _, __, b: Pong(_number(b))),
}


class _Cursor:
    """Reads counts and strings off a START payload."""

    def __init__(self, body: memoryview, at: int) -> None:
        self._body, self._at = body, at

    def count(self) -> int:
        if self._at + 4 > len(self._body):
            raise ProtocolViolation("START ends in the middle of a value")
        value: int = _COUNT.unpack_from(self._body, self._at)[0]
        self._at += 4
        return value

    def text(self) -> str:
        size = self.count()
        raw = bytes(self._body[self._at : self._at + size])
        self._at += size
        if len(raw) != size or b"\0" in raw:
            raise ProtocolViolation("START with a string that is cut or holds NUL")
        return raw.decode("utf-8", "surrogateescape")

    def texts(self) -> Iterable[str]:
        return (self.text() for _ in range(self.count()))

    def end(self) -> None:
        if self._at != len(self._body):
            raise ProtocolViolation("START with bytes behind its end")


def _decode_start(execution: bytes, flags: int, body: memoryview) -> Start:
    boot_id, timeout_ms, kept_limit, drain_grace_ms = _START.unpack_from(body)
    cursor = _Cursor(body, _START.size)
    cwd, argv = cursor.text(), tuple(cursor.texts())
    pairs = [entry.partition("=") for entry in cursor.texts()]
    cursor.end()
    if not argv or any(not key or not separator for key, separator, _ in pairs):
        raise ProtocolViolation("START without a command, or with an environment entry that has no name")
    return Start(
        execution=execution,
        boot_id=boot_id,
        argv=argv,
        env={key: value for key, _, value in pairs},
        cwd=cwd,
        kept_limit=kept_limit,
        timeout_ms=timeout_ms,
        drain_grace_ms=drain_grace_ms,
        stdin_open=flags == 1,
    )


def _decode_hello(_: bytes, __: int, body: memoryview) -> Hello:
    version, epoch = _HELLO.unpack(body)
    if not version:
        raise ProtocolViolation("HELLO with version 0")
    return Hello(epoch, version)


def _decode_ack(execution: bytes, _: int, body: memoryview) -> Ack:
    number, offset = _ACK.unpack(body)
    return Ack(execution, _stream(number), offset)


def _millis(body: memoryview) -> int:
    value: int = _MILLIS.unpack(body)[0]
    return value


_FROM_NODE: Final[Mapping[int, _Rule]] = {
    1: _Rule(12, 12, 0, False, _decode_hello),
    2: _Rule(_START.size + 16, START_BYTES, 1, True, _decode_start),
    3: _Rule(8, 8 + STDIN_FRAME_BYTES, 1, True, lambda i, f, b: Stdin(i, _number(b), bytes(b[8:]), f == 1)),
    4: _Rule(9, 9, 0, True, _decode_ack),
    5: _Rule(0, 0, 0, True, lambda i, _, __: Forget(i)),
    6: _Rule(4, 4, 0, True, lambda i, _, b: Cancel(i, _millis(b))),
    7: _Rule(4, 4, 0, False, lambda _, __, b: Stop(_millis(b))),
    8: _Rule(8, 8, 0, False, lambda _, __, b: Ping(_number(b))),
    9: _Rule(0, 0, 0, False, lambda _, __, ___: Poweroff()),
}

_Frame = TypeVar("_Frame", bound="GuestFrame | NodeFrame")


class _Decoder(Generic[_Frame]):
    """Cuts a byte stream into frames. Holds at most one unfinished frame."""

    __slots__ = ("_held", "_missing")
    _rules: Mapping[int, _Rule]

    def __init__(self) -> None:
        self._held = bytearray()
        self._missing = 0
        """Bytes that have to arrive before looking again is worth it; -1 once the protocol was broken."""

    def feed(self, data: bytes) -> list[_Frame]:
        """Take bytes as they arrive and return the frames they complete. Raises ProtocolViolation, now and ever after.

        Frames in front of the broken one in the same call are lost with the connection.
        """
        if self._missing < 0:
            raise ProtocolViolation("the connection has broken the protocol before")
        if self._held:
            self._held += data
            if len(data) < self._missing:
                self._missing -= len(data)
                return []
            data = bytes(self._held)
            self._held.clear()
        frames: list[_Frame] = []
        try:
            at = self._cut(memoryview(data), frames)
        except ProtocolViolation:
            self._missing = -1
            raise
        if at < len(data):
            self._held += memoryview(data)[at:]
        return frames

    def _cut(self, view: memoryview, frames: list[_Frame]) -> int:
        """Append the frames of `view`; return where the unfinished rest begins."""
        at, end, rules = 0, len(view), self._rules
        while end - at >= 24:
            size, kind, flags, zero, execution = _HEADER.unpack_from(view, at)
            rule = rules.get(kind)
            if rule is None or zero or flags & ~rule.flags or not rule.smallest <= size <= rule.largest:
                raise ProtocolViolation(f"frame type {kind}, flags {flags}, {size} bytes")
            if (execution != NO_ID) is not rule.named:
                raise ProtocolViolation(
                    f"frame type {kind} names an execution where none belongs, or none where one does"
                )
            after = at + 24 + size
            if after > end:
                self._missing = after - end
                return at
            frames.append(rule.decode(execution, flags, view[at + 24 : after]))  # type: ignore[arg-type]
            at = after
        self._missing = 24 - (end - at)
        return at


class GuestDecoder(_Decoder[GuestFrame]):
    """Frames from a guest, for the node."""

    __slots__ = ()
    _rules = _FROM_GUEST


class NodeDecoder(_Decoder[NodeFrame]):
    """Frames from a node, for whatever plays a guest in tests."""

    __slots__ = ()
    _rules = _FROM_NODE
