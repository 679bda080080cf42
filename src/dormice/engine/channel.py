"""A process in a machine that lives as long as somebody here holds it. Nothing of it is stored.

Terminals of SSH sessions, file work and connections to ports are channels. Flow control is end to end: what is not read
here is acknowledged to nobody, so the guest stops reading it from the process. The connection to the node may be lost and
made again meanwhile; a server that ends takes its channels along, because the next one disowns what it does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dormice.domain.errors import Invalid, Unavailable
from dormice.domain.execution import ErrorCode, Stream
from dormice.domain.ids import execution_bytes
from dormice.domain.machine import GOING
from dormice.engine import outcomes
from dormice.engine.board import LiveMachine
from dormice.engine.stdin import CREDIT_BYTES
from dormice.protocol import node as wire

UNLIMITED = (1 << 63) - 1
"""A kept limit that no output reaches."""
_PIECE_BYTES = 65_536
_ORDER_BYTES = 1 << 20
"""What an order may hold: one frame to the guest carries it, with the machine's own environment."""
_EXITED, _SIGNALLED = 1, 2

Report = wire.ExecutionStarted | wire.Output | wire.Exited | wire.Refused | wire.StdinWritten
Send = Callable[[wire.ToNode], object]


class Stalled(Unavailable):
    """A process moved nothing for longer than it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOrder:
    """What is to run. `env` is a secret, added to the machine's own."""

    argv: tuple[str, ...]
    """A program as execve finds it, and its arguments; with `tool`, a tool of the guest's program (guest/src/tools)."""
    tool: bool = False
    cwd: str = "/root"
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_ms: int = 0
    """Its whole tree is killed after so many milliseconds; 0 is never."""
    stall_ms: int = 0
    """Who waits for it raises Stalled when it has taken nothing and said nothing for so many milliseconds; 0 is never."""

    def check(self) -> None:
        """Raise Invalid if it cannot be sent to a guest."""
        texts = [self.cwd, *self.argv, *(f"{name}={value}" for name, value in self.env.items())]
        if not self.argv or any(not name or "=" in name for name in self.env):
            raise Invalid("a process needs a program, and its variables need names without '='")
        try:
            sizes = [len(text.encode()) + 4 for text in texts]
        except UnicodeEncodeError:
            raise Invalid("what starts a process is UTF-8") from None
        if any("\0" in text for text in texts):
            raise Invalid("what starts a process holds no NUL")
        if sum(sizes) > _ORDER_BYTES:
            raise Invalid(f"what starts a process has at most {_ORDER_BYTES} bytes, this has {sum(sizes)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelEnd:
    """How the process ended: at most one of exit code and signal, and an error code for all but exit code 0."""

    exit_code: int | None = None
    signal: int | None = None
    error_code: ErrorCode | None = None
    error_message: str = ""


@dataclass(eq=False, slots=True)
class _Incoming:
    """One output stream: what has been received and not been read."""

    pieces: list[bytes] = field(default_factory=list)
    received: int = 0
    read: int = 0


class Channel:
    """One such process. For one reader of each stream and one writer; `close` it whatever happens.

    `read`, `write` and `wait` raise Stalled, if the order sets a time for that.
    """

    def __init__(
        self, channel_id: str, live: LiveMachine, order: ChannelOrder, send: Send, drain_grace_ms: int
    ) -> None:
        """Take a place among the machine's channels; `start` is the next call. Raises Invalid: the order cannot be sent."""
        order.check()
        self.id = channel_id
        self._live = live
        self._order = order
        self._send = send
        self._drain_grace_ms = drain_grace_ms
        self._name = execution_bytes(channel_id)
        self._boot_id = live.machine.boot_id
        self._streams = {Stream.STDOUT: _Incoming(), Stream.STDERR: _Incoming()}
        self._known = False
        """The guest has spoken of it."""
        self._closed = False
        self._attached = True
        """The guest has said on the present connection where standard input goes on."""
        self._unwritten = bytearray()
        """Standard input from offset `_written` on that the process has not been given yet."""
        self._written = 0
        self._eof = False
        self._stdin_closed = False
        self._end: ChannelEnd | None = None
        self._waiting: list[asyncio.Future[None]] = []
        live.channels[channel_id] = self

    # For whoever holds it

    async def read(self, stream: Stream = Stream.STDOUT) -> bytes:
        """Return what comes next, at most 256 KiB; empty once the process has ended and all was read, or this is closed."""
        incoming = self._streams[stream]
        while not incoming.pieces and self._end is None and not self._closed:
            await self._change()
        data = b"".join(incoming.pieces)
        incoming.pieces.clear()
        incoming.read = incoming.received
        if data and self._end is None:
            self._acknowledge(stream)
        return data

    async def write(self, data: bytes) -> None:
        """Give bytes to the process, waiting for it to take them. Bytes that nobody will read are dropped."""
        rest = memoryview(data)
        while rest and not self._deaf:
            room = CREDIT_BYTES - len(self._unwritten)
            if room <= 0:
                await self._change()
                continue
            piece, rest = rest[:room], rest[room:]
            offset = self._written + len(self._unwritten)
            self._unwritten += piece
            self._feed(offset, bytes(piece))

    def write_eof(self) -> None:
        """End the standard input of the process. Once; nothing can be written after it."""
        if not self._eof:
            self._eof = True
            self._feed(self._written + len(self._unwritten), b"")

    async def wait(self) -> ChannelEnd:
        """Return how the process ended, once it has. Output that nobody reads may keep it from ending."""
        while self._end is None:
            await self._change()
        return self._end

    @property
    def ended(self) -> bool:
        """Whether the process has ended: what is written to it from now on is dropped."""
        return self._end is not None

    @property
    def deleted(self) -> bool:
        """Whether its machine is deleted, or is being."""
        return self._live.machine.phase in GOING

    def close(self) -> None:
        """Kill whatever is left of the process and its children; nothing more can be read. May be repeated."""
        if not self._closed:
            self._closed = True
            for incoming in self._streams.values():
                incoming.pieces.clear()
            if self._end is None:
                self._kill()
            self._changed()

    @property
    def quiet(self) -> bool:
        """Whether the process runs and has said nothing on standard output that was not read."""
        return self._end is None and not self._closed and not self._streams[Stream.STDOUT].pieces

    # For the engine

    def start(self) -> None:
        """Have the guest make the process."""
        boot_id = self._boot_id
        if boot_id is None:
            raise RuntimeError(f"{self._live.machine.id} is awake without a boot")
        self._send(
            wire.StartExecution(
                machine_id=self._live.machine.id,
                boot_id=boot_id.bytes,
                execution=self._name,
                timeout_ms=self._order.timeout_ms,
                kept_limit=UNLIMITED,
                drain_grace_ms=self._drain_grace_ms,
                cwd=self._order.cwd,
                argv=list(self._order.argv),
                env=dict(self._order.env),
                stdin_open=True,
                tool=self._order.tool,
            )
        )

    def hear(self, message: Report) -> None:
        """Take a report of the guest."""
        self._known = True
        match message:
            case wire.Output():
                self._take(Stream(message.stream), message.offset, message.data)
            case wire.StdinWritten():
                self._confirm(message.written, closed=message.closed)
            case wire.Exited():
                self._finish(self._ended_as(message))
            case wire.Refused():
                text = "the machine has no memory, process ids or file descriptors left, or is being stopped"
                self._finish(ChannelEnd(error_code=ErrorCode.RESOURCE_EXHAUSTED, error_message=text))
            case wire.ExecutionStarted():
                pass

    def detached(self) -> None:
        """Keep what is written until the guest is attached to again."""
        self._attached = False

    def attached(self, *, known: bool) -> None:
        """Go on after a new connection to the guest, which says whether it knows the process."""
        if not known and (self._known or self._closed):
            if self._closed:
                self._kill()  # should its start be on the way after all
            self.lost("its guest does not know it")
            return
        self._attached = not known
        if self._closed:
            self._kill()
        elif not known:
            self.start()
            self._feed(self._written, bytes(self._unwritten))
        for stream, incoming in self._streams.items():
            if incoming.read:
                self._acknowledge(stream)

    def lost(self, why: str) -> None:
        """End it without a word of the guest: its machine is no more."""
        message = f"the machine was lost while it ran: {why}"
        self._finish(ChannelEnd(error_code=ErrorCode.MACHINE_LOST, error_message=message), forget=False)

    def _take(self, stream: Stream, offset: int, data: bytes) -> None:
        incoming = self._streams[stream]
        fresh = data[max(incoming.received - offset, 0) :]
        if not fresh:
            return
        incoming.received += len(fresh)
        if self._closed:
            incoming.read = incoming.received
            self._acknowledge(stream)
        else:
            incoming.pieces.append(fresh)
            self._changed()

    def _acknowledge(self, stream: Stream) -> None:
        offset = self._streams[stream].read
        self._send(wire.AckOutput(self._live.machine.id, self._name, stream.value, offset))

    @property
    def _deaf(self) -> bool:
        return self._end is not None or self._closed or self._stdin_closed or self._eof

    def _feed(self, offset: int, data: bytes) -> None:
        if not self._attached:
            return
        eof = self._eof and offset + len(data) == self._written + len(self._unwritten)
        for start in range(0, max(len(data), 1), _PIECE_BYTES):
            piece = data[start : start + _PIECE_BYTES]
            if piece or eof:
                last = eof and start + _PIECE_BYTES >= len(data)
                self._send(wire.WriteStdin(self._live.machine.id, self._name, offset + start, piece, last))

    def _confirm(self, written: int, *, closed: bool) -> None:
        taken = min(max(written - self._written, 0), len(self._unwritten))
        del self._unwritten[:taken]
        self._written += taken
        self._stdin_closed = self._stdin_closed or closed
        if not self._attached:
            # What was sent on an earlier connection may never have arrived; the guest skips repeats.
            self._attached = True
            self._feed(self._written, bytes(self._unwritten))
        self._changed()

    def _ended_as(self, report: wire.Exited) -> ChannelEnd:
        if report.how == _EXITED and report.code == 0:
            return ChannelEnd(exit_code=0)
        if report.timed_out:
            message = f"killed after {self._order.timeout_ms} ms"
            return ChannelEnd(signal=report.code or None, error_code=ErrorCode.TIMEOUT, error_message=message)
        code, message = outcomes.failure(self._order.argv[0], self._order.cwd, report)
        return ChannelEnd(
            exit_code=report.code if report.how == _EXITED else None,
            signal=report.code if report.how == _SIGNALLED else None,
            error_code=code,
            error_message=message,
        )

    def _finish(self, end: ChannelEnd, *, forget: bool = True) -> None:
        if self._end is not None:
            return
        self._end = end
        self._unwritten.clear()
        self._live.channels.pop(self.id, None)
        if forget:
            self._send(wire.Forget(self._live.machine.id, self._name))
        self._changed()

    def _kill(self) -> None:
        self._send(wire.CancelExecution(self._live.machine.id, self._name, 0))

    async def _change(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        stall_ms = self._order.stall_ms
        try:
            async with asyncio.timeout(stall_ms / 1000 if stall_ms else None):
                await waiting
        except TimeoutError:
            name = self._order.argv[0]
            words = f"`{name}` in the machine has taken and said nothing for {stall_ms} ms, and is killed"
            raise Stalled(words, retry_after_ms=1_000) from None

    def _changed(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
