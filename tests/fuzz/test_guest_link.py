"""A hostile guest: whatever it says, cut however, the node passes on what makes sense or cuts the machine off."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dormice.domain.execution import Stream
from dormice.node.guest_link import GuestLink
from dormice.node.runtime import Running
from dormice.protocol import guest
from dormice.protocol import node as wire
from tests.fuzz.budget import fuzz_machine
from tests.wait import others_run

BOOT = UUID(int=7, version=4)
IDS = tuple(bytes([number]) * 16 for number in range(1, 7))
HELD_BYTES = 24 + 9 + guest.OUTPUT_FRAME_BYTES + 16 * guest.KNOWN_EXECUTIONS
ids = st.sampled_from(IDS)
streams = st.sampled_from(Stream)
small = st.integers(0, 6)
numbers = small | st.sampled_from((guest.STREAM_WINDOW_BYTES, guest.MOST_BYTES, guest.MOST_BYTES + 1, (1 << 64) - 1))
data = st.sampled_from((1, 2, 4, guest.OUTPUT_FRAME_BYTES)).map(bytes)
exits = st.builds(
    guest.Exited,
    execution=ids,
    how=st.sampled_from((guest.How.EXITED, guest.How.SIGNALLED, guest.How.NOT_FOUND, guest.How.INTERRUPTED)),
    code=small,
    started_at=small,
    ended_at=small,
    stdout_total=small,
    stderr_total=small,
    stdout_kept=small,
    stderr_kept=small,
    flags=st.integers(0, 15).map(guest.End),
)
frames = st.one_of(
    st.builds(guest.Welcome, st.just(BOOT.bytes), st.lists(ids, unique=True).map(tuple)),
    st.builds(guest.Stale, small),
    st.builds(guest.Started, ids, numbers),
    st.builds(guest.Output, ids, streams, numbers, data),
    exits,
    st.builds(guest.Refused, ids, st.sampled_from(guest.Reason)),
    st.builds(guest.StdinState, ids, numbers, st.booleans()),
    st.just(guest.Stopped()),
    st.builds(guest.Pong, small),
)


shifts = st.sampled_from((0, 0, 0, 0, 0, 0, 1, -1, 9))


def is_open(machine: HostileGuest) -> bool:
    return machine.welcomed and not machine.transport.cut


class _Transport(asyncio.Transport):
    """Takes what is written, and is told when it is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False
        self.heard = guest.NodeDecoder()
        self.frames: list[guest.NodeFrame] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.cut
        self.frames += self.heard.feed(bytes(data))

    def writelines(self, list_of_data: object) -> None:
        for piece in list_of_data:  # type: ignore[attr-defined]
            self.write(piece)

    def abort(self) -> None:
        self.cut = True

    def is_closing(self) -> bool:
        return self.cut

    def get_write_buffer_size(self) -> int:
        return 0


class HostileGuest(RuleBasedStateMachine):
    """Says what the rules choose. Checks what the node passes on, as it does, against what may follow what."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.transport = _Transport()
        self.lies: list[str] = []
        self.welcomed = False
        self.live: set[bytes] = set()
        """Executions that the server may hear of: said to be known, or started; not ended."""
        self.seen: set[bytes] = set()
        """All that ever were among them."""
        self.started: set[bytes] = set()
        self.next: dict[tuple[bytes, int], int] = {}
        self.acknowledged: dict[tuple[bytes, int], int] = {}
        self.stdin: dict[bytes, tuple[int, bool]] = {}

    def teardown(self) -> None:
        self.loop.run_until_complete(others_run())
        if self.link.welcomed.done():
            self.link.welcomed.exception()  # seen, as `attach` would
        self.loop.close()

    # The listener

    def guest_welcomed(self, link: GuestLink) -> None:
        assert not self.welcomed
        self.welcomed = True

    def guest_said(self, message: wire.FromNode) -> None:
        assert self.welcomed
        assert not self.lies, "what came after a lie was passed on"
        wire.encode(message)
        match message:
            case wire.Attached(executions=executions):
                assert not self.live
                self.live |= set(executions)
                self.seen |= self.live
            case wire.ExecutionStarted(execution=execution):
                assert execution in self.live - self.started
                self.started.add(execution)
            case wire.Output(execution=execution, stream=stream, offset=offset):
                assert execution in self.live
                expected = self.next.get((execution, stream), offset)
                assert offset in (expected, max(expected, self.acknowledged.get((execution, stream), 0)))
                self.next[execution, stream] = offset + len(message.data)
            case wire.Exited(execution=execution) | wire.Refused(execution=execution):
                assert execution in self.live, "it ended twice, or was never there"
                self.live.remove(execution)
            case wire.StdinWritten(execution=execution, written=written, closed=closed):
                before = self.stdin.get(execution, (0, False))
                assert written >= before[0]
                assert closed or not before[1]
                self.stdin[execution] = written, closed
            case _:
                raise AssertionError(message)

    def guest_heard(self) -> None:
        """Nothing to do."""

    def guest_lied(self, link: GuestLink, violation: str) -> None:
        assert not self.lies
        assert violation
        assert self.transport.cut
        self.lies.append(violation)

    def guest_hung_up(self, link: GuestLink) -> None:
        raise AssertionError("nobody hung up")

    # What happens

    @initialize(known=st.lists(ids, unique=True, max_size=2), polite=st.integers(0, 9))
    def connect(self, known: list[bytes], polite: int) -> None:
        async def made() -> GuestLink:
            return GuestLink(Running("dm-1", BOOT, Path("/nowhere"), -1), 1, self, lambda: 0)

        self.link = self.loop.run_until_complete(made())
        self.on_loop(lambda: self.link.connection_made(self.transport))
        if polite:
            self.feed(guest.encode(guest.Welcome(BOOT.bytes, tuple(known))))

    def on_loop(self, do: object) -> None:
        async def done() -> None:
            do()  # type: ignore[operator]

        self.loop.run_until_complete(done())

    def feed(self, received: bytes, size: int = 1 << 20) -> None:
        """As asyncio does: nothing more once the transport was cut."""
        for at in range(0, len(received), size):
            if self.transport.cut:
                return
            piece = received[at : at + size]
            self.on_loop(lambda piece=piece: self.link.data_received(piece))

    def say(self, *said: guest.GuestFrame, size: int = 1 << 20) -> None:
        received = b"".join(map(guest.encode, said))
        self.feed(received, size if len(received) < 1_000 else 1 << 15)

    @rule(
        rarely=st.integers(0, 7),
        said=st.lists(frames, min_size=1, max_size=3),
        size=st.sampled_from((1, 5, 30, 1 << 20)),
    )
    def say_anything(self, rarely: int, said: list[guest.GuestFrame], size: int) -> None:
        """Most of what comes at random is the end of the line."""
        if not rarely:
            self.say(*said, size=size)

    @rule(rarely=st.integers(0, 7), noise=st.binary(min_size=1, max_size=60))
    def make_noise(self, rarely: int, noise: bytes) -> None:
        if not rarely:
            self.feed(noise)

    # Nearly the truth

    def one(self, chosen: int) -> bytes:
        """Mostly one that lives."""
        return sorted(self.live)[chosen % len(self.live)] if self.live and chosen else IDS[chosen % len(IDS)]

    @precondition(is_open)
    @rule(chosen=st.integers(0, 9), stream=streams, shift=shifts, size=st.sampled_from((1, 3, 65_536)))
    def write_output(self, chosen: int, stream: Stream, shift: int, size: int) -> None:
        execution = self.one(chosen)
        offset = max(0, self.next.get((execution, stream.value), 0) + shift)
        self.say(guest.Output(execution, stream, offset, bytes(size)))

    @precondition(is_open)
    @rule(chosen=st.integers(0, 9), again=st.integers(0, 5))
    def say_started(self, chosen: int, again: int) -> None:
        execution = self.one(chosen)
        if execution not in self.started or not again:
            self.say(guest.Started(execution, 1))

    @precondition(is_open)
    @rule(chosen=st.integers(0, 9), shift=st.sampled_from((0, 1, 3, -1)), closed=st.booleans())
    def take_input(self, chosen: int, shift: int, closed: bool) -> None:  # noqa: FBT001
        execution = self.one(chosen)
        written = self.stdin.get(execution, (0, False))[0]
        self.say(guest.StdinState(execution, max(0, written + shift), closed))

    @precondition(is_open)
    @rule(chosen=st.integers(0, 9), lie=st.sampled_from((0, 0, 0, 1)), times=st.sampled_from((1, 1, 2)))
    def end(self, chosen: int, lie: int, times: int) -> None:
        execution = self.one(chosen)
        kept = [self.next.get((execution, stream.value), 0) + lie for stream in Stream]
        exited = guest.Exited(
            execution=execution,
            how=guest.How.EXITED,
            code=0,
            started_at=1,
            ended_at=2,
            stdout_total=kept[0],
            stderr_total=kept[1],
            stdout_kept=kept[0],
            stderr_kept=kept[1],
        )
        self.say(*([exited] * times))

    @precondition(is_open)
    @rule(execution=ids)
    def start(self, execution: bytes) -> None:
        """The server never starts what was there, nor what has ended."""
        if execution in self.seen:
            return
        order = wire.StartExecution("dm-1", BOOT.bytes, execution, 0, 100, 0, "/", ["x"], {}, stdin_open=True)
        known = execution in self.link._known
        self.on_loop(lambda: self.link.start(order))
        if not known:
            self.live.add(execution)
            self.seen.add(execution)
            for stream in Stream:
                self.next[execution, stream.value] = 0

    @precondition(is_open)
    @rule(execution=ids, stream=streams, ahead=st.booleans())
    def acknowledge(self, execution: bytes, stream: Stream, ahead: bool) -> None:  # noqa: FBT001
        key = execution, stream.value
        offset = self.next.get(key, 0) + 9 * ahead
        if execution in self.link._known:
            self.acknowledged[key] = max(offset, self.acknowledged.get(key, 0))
        self.on_loop(lambda: self.link.acknowledge(wire.AckOutput("dm-1", execution, stream.value, offset)))

    @precondition(is_open)
    @rule(execution=ids)
    def forget(self, execution: bytes) -> None:
        self.on_loop(lambda: self.link.forget(execution))
        self.live.discard(execution)

    @precondition(is_open)
    @rule(execution=ids, offset=small)
    def write(self, execution: bytes, offset: int) -> None:
        message = wire.WriteStdin("dm-1", execution, offset, b"abc", eof=False)
        self.on_loop(lambda: self.link.write_stdin(message))

    # What always holds

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.link._decoder._held) <= HELD_BYTES
        assert len(self.link._known) <= guest.KNOWN_EXECUTIONS + len(IDS)

    @invariant()
    def a_lie_is_the_end(self) -> None:
        assert self.transport.cut == bool(self.lies)


def test_a_hostile_guest() -> None:
    fuzz_machine(HostileGuest, examples=300, steps=25)
