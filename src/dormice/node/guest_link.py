"""One connection to one guest: the handshake, the checks that frames alone cannot show, and translation.

Everything from a guest is hostile: an offset that does not follow, output beyond the window, news of an execution that
nobody started or that has ended already is a violation, and the machine is cut off.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from dormice.crash_points import CrashPoint, reached, reached_once_sent
from dormice.domain.execution import Stream
from dormice.node.runtime import Running
from dormice.outbox import Outbox
from dormice.protocol import guest
from dormice.protocol import node as wire

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
IDLE_TALK = 1_000
"""How many frames that say nothing new a guest may send, beyond as many as it was sent."""
_SIGKILL = 9

ToGuest = wire.StartExecution | wire.AckOutput | wire.Forget | wire.WriteStdin | wire.CancelExecution | wire.SayAgain
"""What the server says that is for a guest."""


class LinkListener(Protocol):
    """Who hears what the guest says."""

    def guest_welcomed(self, link: GuestLink) -> None:
        """The guest follows this link from now on; called before anything that it says is passed on. May close it."""
        ...

    def guest_said(self, message: wire.FromNode) -> None:
        """Pass on a checked and translated message."""
        ...

    def guest_heard(self) -> None:
        """All that has arrived together was passed on."""
        ...

    def guest_lied(self, link: GuestLink, violation: str) -> None:
        """The guest broke the protocol; the link is closed."""
        ...

    def guest_hung_up(self, link: GuestLink) -> None:
        """The connection was lost; the machine may be alive."""
        ...


@dataclass(eq=False, slots=True)
class _Known:
    """An execution that the guest has, as far as this connection has seen."""

    next_offset: dict[Stream, int | None]
    """Where the stream goes on; None until the first frame after an attach."""
    acknowledged: dict[Stream, int] = field(default_factory=dict)
    started: bool = False
    exited: bool = False
    stdin: tuple[int, bool] | None = None
    """What was last said of its standard input on this connection."""
    stdin_end: int = 0
    """Where what was sent of it ends."""
    disowned: bool = False
    """The server has no use for it: what comes is acknowledged here, and its end forgotten at once."""

    def goes_on_at(self, stream: Stream, offset: int) -> bool:
        """Whether the stream may go on, or end, at `offset`.

        The server may have more than this connection brought, from the one before. Once the guest reads so, it skips it.
        """
        expected = self.next_offset[stream]
        return expected is None or offset == expected or offset == self.acknowledged.get(stream, 0) > expected


class GuestLink(asyncio.Protocol):
    """Speaks the guest protocol on one connection. Made by `attach`."""

    def __init__(self, running: Running, epoch: int, listener: LinkListener, oom_kills: Callable[[], int]) -> None:
        self.running = running
        self._epoch = epoch
        self._listener = listener
        self._oom_kills = oom_kills
        self._oom_seen = oom_kills()
        self._decoder = guest.GuestDecoder()
        self._known: dict[bytes, _Known] = {}
        self._transport: asyncio.Transport | None = None
        self._outbox = Outbox()
        self._sent = 0
        self._idle_talk = 0
        loop = asyncio.get_running_loop()
        self.welcomed: asyncio.Future[guest.Welcome | guest.Stale] = loop.create_future()
        self.stopped: asyncio.Future[None] = loop.create_future()
        """Done when the guest has stopped everything and synced."""
        self.emptied: asyncio.Future[None] = loop.create_future()
        """Done when, after that, all it had to say is durable at the server."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a stream connection has a Transport
        self._outbox.open(transport)  # type: ignore[arg-type] # likewise
        self.send(guest.Hello(epoch=self._epoch))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionError("the guest hung up during the handshake"))
        self.stopped.cancel()
        self.emptied.cancel()
        if self._transport is not None:
            self._transport = None
            self._outbox.drop()
            self._listener.guest_hung_up(self)

    def close(self) -> None:
        """Hang up without telling the listener. The guest keeps what is not acknowledged."""
        self._outbox.close()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def hang_up(self) -> None:
        """Hang up as if the guest had: the listener is told."""
        if self._transport is not None:
            self._transport.abort()

    def send(self, frame: guest.NodeFrame) -> None:
        """Send a frame; lost if the connection is."""
        self._outbox.send(guest.encode(frame))
        self._sent += 1

    # From the server

    def do(self, message: ToGuest) -> None:
        """Pass on what the server says. What cannot be sent ends the execution that it is about, and nothing else."""
        try:
            self._do(message)
        except (ValueError, struct.error) as error:
            fields = {"machine_id": message.machine_id}
            words = "what cannot be sent to machine %s ends an execution: %s"
            log.warning(words, message.machine_id, error, extra=fields)
            if isinstance(message, wire.StartExecution):
                self._listener.guest_said(_unsendable(message))
                self._listener.guest_heard()
            elif not isinstance(message, wire.SayAgain):
                self.send(guest.Cancel(message.execution, 0))

    def _do(self, message: ToGuest) -> None:
        match message:
            case wire.StartExecution():
                reached(CrashPoint.EXECUTION_RECEIVED)
                self.start(message)
                reached_once_sent(CrashPoint.EXECUTION_WRITTEN)
            case wire.AckOutput():
                reached(CrashPoint.ACKNOWLEDGEMENT_RECEIVED)
                self.acknowledge(message)
            case wire.Forget():
                reached(CrashPoint.FORGET_RECEIVED)
                self.forget(message.execution)
            case wire.WriteStdin():
                reached(CrashPoint.STDIN_RECEIVED)
                self.write_stdin(message)
            case wire.CancelExecution():
                reached(CrashPoint.CANCEL_RECEIVED)
                self.send(guest.Cancel(message.execution, message.grace_ms))
            case wire.SayAgain():
                self.hang_up()

    def start(self, message: wire.StartExecution) -> None:
        """Send a start frame with the machine's environment under the execution's. Raises ValueError: it is too long, or holds NUL."""
        program = (self.running.guest_program,) if message.tool else ()
        self.send(
            guest.Start(
                execution=message.execution,
                boot_id=message.boot_id,
                argv=(*program, *message.argv),
                env={**self.running.environment, **message.env},
                cwd=message.cwd,
                kept_limit=message.kept_limit,
                timeout_ms=message.timeout_ms,
                drain_grace_ms=message.drain_grace_ms,
                stdin_open=message.stdin_open,
            )
        )
        self._known.setdefault(message.execution, _Known({Stream.STDOUT: 0, Stream.STDERR: 0}))

    def write_stdin(self, message: wire.WriteStdin) -> None:
        """Send bytes of standard input."""
        known = self._known.get(message.execution)
        if known is not None:
            known.stdin_end = max(known.stdin_end, message.offset + len(message.data))
        self.send(guest.Stdin(message.execution, message.offset, message.data, message.eof))

    def acknowledge(self, message: wire.AckOutput) -> None:
        """Widen the window of a stream."""
        known = self._known.get(message.execution)
        if known is not None:
            stream = Stream(message.stream)
            known.acknowledged[stream] = max(message.offset, known.acknowledged.get(stream, 0))
            self.send(guest.Ack(message.execution, stream, message.offset))

    def forget(self, execution: bytes) -> None:
        """Let the guest drop an execution; one that has not ended yet, once it has."""
        known = self._known.get(execution)
        if known is not None and not known.exited:
            known.disowned = True
            return
        self._known.pop(execution, None)
        self.send(guest.Forget(execution))
        self._look_whether_empty()

    def _look_whether_empty(self) -> None:
        if self.stopped.done() and not self._known and not self.emptied.done():
            self.emptied.set_result(None)

    # From the guest

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                if self._transport is None:  # closed by what came before
                    return
                self._hear(frame)
            self._listener.guest_heard()
        except guest.ProtocolViolation as violation:
            if not self.welcomed.done():
                self.welcomed.set_exception(violation)
            self.close()
            self._listener.guest_lied(self, str(violation))

    def _hear(self, frame: guest.GuestFrame) -> None:
        if not self.welcomed.done():
            self._handshake(frame)
            return
        message = self._translate(frame)
        if message is not None:
            self._listener.guest_said(message)

    def _handshake(self, frame: guest.GuestFrame) -> None:
        match frame:
            case guest.Welcome(boot_id=boot_id, executions=executions):
                if boot_id != self.running.boot_id.bytes:
                    raise guest.ProtocolViolation("the guest claims to be of another boot")
                for execution in executions:
                    self._known[execution] = _Known({Stream.STDOUT: None, Stream.STDERR: None})
                self.welcomed.set_result(frame)
                self._listener.guest_welcomed(self)
                if self._transport is None:
                    return
                self._listener.guest_said(wire.Attached(self.running.machine_id, boot_id, list(executions)))
            case guest.Stale():
                self.welcomed.set_result(frame)
            case _:
                raise guest.ProtocolViolation(f"{type(frame).__name__} before WELCOME")

    def _translate(self, frame: guest.GuestFrame) -> wire.FromNode | None:
        machine_id = self.running.machine_id
        match frame:
            case guest.Output(execution=execution, stream=stream, offset=offset, data=data):
                if self._follow(execution, stream, offset, len(data)).disowned:
                    self.acknowledge(wire.AckOutput(machine_id, execution, stream.value, offset + len(data)))
                    return None
                return wire.Output(machine_id, execution, stream.value, offset, data)
            case guest.Started(execution=execution, at=at):
                return None if self._start_of(execution).disowned else wire.ExecutionStarted(machine_id, execution, at)
            case guest.Exited():
                return self._unless_disowned(frame.execution, self._exited(frame))
            case guest.Refused(execution=execution, reason=reason):
                self._find(execution).exited = True
                return self._unless_disowned(execution, wire.Refused(machine_id, execution, reason.value))
            case guest.StdinState(execution=execution, written=written, closed=closed):
                if self._is_news(frame):
                    return wire.StdinWritten(machine_id, execution, written, closed)
                self._count_idle_talk()
            case guest.Stopped() if not self.stopped.done():
                self.stopped.set_result(None)
                self._look_whether_empty()
            case guest.Stopped() | guest.Pong():
                self._count_idle_talk()
            case _:
                raise guest.ProtocolViolation(f"{type(frame).__name__} in the middle of a connection")
        return None

    def _find(self, execution: bytes) -> _Known:
        known = self._known.get(execution)
        if known is None or known.exited:
            raise guest.ProtocolViolation("news of an execution that is not under way")
        return known

    def _start_of(self, execution: bytes) -> _Known:
        known = self._find(execution)
        if known.started:
            raise guest.ProtocolViolation("an execution started twice")
        known.started = True
        return known

    def _is_news(self, frame: guest.StdinState) -> bool:
        """Whether the server should hear it; an execution that was just forgotten may still be spoken of."""
        known = self._known.get(frame.execution)
        said = frame.written, frame.closed
        if known is None or said == known.stdin:
            return False
        if known.stdin is None:
            known.stdin_end = max(known.stdin_end, frame.written)
        elif frame.written < known.stdin[0] or (known.stdin[1] and not frame.closed):
            raise guest.ProtocolViolation("standard input is taken back")
        if frame.written > known.stdin_end:
            raise guest.ProtocolViolation("more standard input is written than there was")
        known.stdin = said
        return True

    def _count_idle_talk(self) -> None:
        self._idle_talk += 1
        if self._idle_talk > IDLE_TALK + self._sent:
            raise guest.ProtocolViolation("too many frames that say nothing new")

    def _unless_disowned(self, execution: bytes, end: wire.FromNode) -> wire.FromNode | None:
        if not self._known[execution].disowned:
            return end
        self.forget(execution)
        return None

    def _follow(self, execution: bytes, stream: Stream, offset: int, size: int) -> _Known:
        known = self._find(execution)
        if known.next_offset[stream] is None:
            known.acknowledged.setdefault(stream, offset)
        elif not known.goes_on_at(stream, offset):
            raise guest.ProtocolViolation(f"output at offset {offset}, {known.next_offset[stream]} was next")
        known.next_offset[stream] = offset + size
        if offset + size - known.acknowledged.get(stream, 0) > guest.STREAM_WINDOW_BYTES:
            raise guest.ProtocolViolation("output beyond the window")
        return known

    def _exited(self, frame: guest.Exited) -> wire.Exited:
        known = self._find(frame.execution)
        for stream, kept in ((Stream.STDOUT, frame.stdout_kept), (Stream.STDERR, frame.stderr_kept)):
            if not known.goes_on_at(stream, kept):
                raise guest.ProtocolViolation(f"EXITED with {kept} bytes kept after another count was sent")
        known.exited = True
        return wire.Exited(
            machine_id=self.running.machine_id,
            execution=frame.execution,
            how=frame.how.value,
            code=frame.code,
            errno=frame.errno,
            started_at=frame.started_at,
            ended_at=frame.ended_at,
            stdout_total=frame.stdout_total,
            stderr_total=frame.stderr_total,
            timed_out=bool(frame.flags & guest.End.TIMEOUT),
            cancelled=bool(frame.flags & guest.End.CANCEL),
            drained=bool(frame.flags & guest.End.DRAIN),
            oom=bool(frame.flags & guest.End.OOM) or self._was_oom(frame),
            stdout_kept=frame.stdout_kept,
            stderr_kept=frame.stderr_kept,
        )

    def _was_oom(self, frame: guest.Exited) -> bool:
        """On hosts whose memory controller is on cgroup v1 only the machine's counter tells."""
        if frame.how is not guest.How.SIGNALLED or frame.code != _SIGKILL or frame.flags:
            return False
        seen, self._oom_seen = self._oom_seen, self._oom_kills()
        return self._oom_seen > seen


def _unsendable(message: wire.StartExecution) -> wire.Exited:
    """The end of an execution that its guest never hears of."""
    return wire.Exited(
        machine_id=message.machine_id,
        execution=message.execution,
        how=guest.How.SPAWN_FAILED.value,
        code=0,
        errno=errno.E2BIG,
        started_at=0,
        ended_at=time.time_ns(),
        stdout_total=0,
        stderr_total=0,
        timed_out=False,
        cancelled=False,
        drained=False,
        oom=False,
        stdout_kept=0,
        stderr_kept=0,
    )


async def attach(running: Running, epoch: int, listener: LinkListener, oom_kills: Callable[[], int]) -> GuestLink:
    """Connect to a guest with an epoch at least as given. Raises OSError, ProtocolViolation, TimeoutError."""
    loop = asyncio.get_running_loop()
    while True:
        link = GuestLink(running, epoch, listener, oom_kills)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await loop.create_unix_connection(lambda link=link: link, str(running.guest_socket))  # type: ignore[misc]
                answer = await link.welcomed
        except BaseException:
            link.close()  # what it answers too late would be taken for a breach of the protocol
            raise
        if isinstance(answer, guest.Welcome):
            return link
        link.close()
        epoch = answer.epoch + 1
