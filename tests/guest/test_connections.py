"""Connections: one is followed, what is owed is sent again, hostile and slow hosts do no harm."""

from __future__ import annotations

import random
import socket
import struct
from uuid import uuid4

import pytest

from dormice.domain.execution import Stream
from dormice.protocol.guest import (
    Ack,
    Cancel,
    Exited,
    Forget,
    Hello,
    Output,
    Ping,
    Pong,
    Stale,
    Started,
    Stdin,
    StdinState,
    Welcome,
    encode,
)
from tests.guest.guest_process import GuestProcess, Link, Outcome
from tests.wait import wait_until

HEADER = struct.Struct("<IBBH16s")
ID = bytes(range(1, 17))


def test_a_new_guest_knows_nothing(guest: GuestProcess) -> None:
    with guest.connect(hello=False) as link:
        assert link.hello() == Welcome(guest.boot_id.bytes, ())


def test_a_higher_epoch_takes_over_and_an_equal_one_is_told(guest: GuestProcess) -> None:
    with guest.connect() as old, guest.connect() as new:
        assert old.hung_up()
        for epoch in (0, old.epoch, new.epoch):
            with Link(guest.socket_path, guest.boot_id, epoch) as late:
                late.send(Hello(epoch))
                assert late.receive() == Stale(new.epoch)
                assert late.hung_up()
        new.send(Ping(9))
        assert new.receive() == Pong(9)


def test_unread_frames_of_an_older_connection_never_take_effect(guest: GuestProcess) -> None:
    """The HELLO of a second connection is read in the same turn as a flood of starts on the first."""
    with guest.connect() as old:
        old.send(*(Ping(token) for token in range(2000)))
        for _ in range(20):
            old.start("/bin/sleep", "100")
        with guest.connect(hello=False) as new:
            known = set(new.hello().executions)
            outcome = new.run("/bin/true")
            assert outcome.end.code == 0
            new.socket.close()
        with guest.connect(hello=False) as newest:
            assert set(newest.hello().executions) - known <= {outcome.end.execution}


def test_everything_unacknowledged_is_sent_again_in_order(guest: GuestProcess) -> None:
    with guest.connect() as link:
        ended = link.start("/bin/sh", "-c", "echo out; echo err >&2; exit 5")
        link.until(Exited)
        running = link.start("/bin/sh", "-c", "echo abcdef; cat", stdin_open=1)
        link.until(Output)
        link.send(Ack(running, Stream.STDOUT, 3))
        link.shell("true")
    for _ in range(3):
        with guest.connect(hello=False) as link:
            assert link.hello().executions == (ended, running)
            frames = [link.receive() for _ in range(7)]
            kinds = {name: [type(f) for f in frames if f.execution == name] for name in (ended, running)}  # type: ignore[union-attr]
            assert kinds[ended] == [Started, Output, Output, Exited]
            assert kinds[running] == [Started, StdinState, Output]
            output = next(f for f in frames if isinstance(f, Output) and f.execution == running)
            assert (output.offset, output.data) == (3, b"def\n")
            with pytest.raises(TimeoutError):
                link.receive(timeout=0.05)


def test_what_was_acknowledged_before_it_could_be_sent_again_is_skipped(guest: GuestProcess) -> None:
    """A node that is new may have a server that is not: it has more than the new connection brought so far."""
    size = 240_000
    with guest.connect() as first:
        execution = first.start("/bin/sh", "-c", f"head -c {size} /dev/zero; read line; printf more", stdin_open=True)
        first.until(Output, lambda frame: frame.offset + len(frame.data) == size)
    with guest.connect(hello=False, receive_buffer=4096) as second:
        second.send(Hello(second.epoch), Ack(execution, Stream.STDOUT, size), Stdin(execution, 0, b"x\n"))
        skipped = second.until(Output, lambda frame: frame.offset >= size)
        assert (skipped.offset, skipped.data) == (size, b"more")
        assert second.until(Exited).stdout_kept == size + 4


def test_a_frame_cut_by_a_lost_connection_is_dropped(guest: GuestProcess) -> None:
    execution = uuid4().bytes
    with guest.connect() as link:
        whole = encode(Cancel(execution, 0))
        link.socket.sendall(whole[:-1])
    with guest.connect() as link:
        assert link.run("/bin/true", execution=execution).end.code == 0


def test_frames_may_arrive_byte_by_byte(guest: GuestProcess) -> None:
    with guest.connect() as link:
        for byte in encode(Ping(1)) + encode(Ping(2)):
            link.socket.sendall(bytes([byte]))
        assert [link.receive(), link.receive()] == [Pong(1), Pong(2)]


BROKEN = {
    "unknown type": HEADER.pack(0, 99, 0, 0, bytes(16)),
    "type from the guest": HEADER.pack(8, 67, 0, 0, ID) + bytes(8),
    "second hello": encode(Hello(1 << 40)),
    "unknown flag": HEADER.pack(0, 5, 1, 0, ID),
    "not zero": HEADER.pack(0, 5, 0, 1, ID),
    "id where none belongs": HEADER.pack(8, 8, 0, 0, ID) + bytes(8),
    "no id where one belongs": HEADER.pack(0, 5, 0, 0, bytes(16)),
    "too short": HEADER.pack(7, 8, 0, 0, bytes(16)) + bytes(7),
    "too long": HEADER.pack((2 << 20) + 1, 2, 0, 0, ID),
    "longest length": HEADER.pack(0xFFFFFFFF, 2, 0, 0, ID),
    "stdin too long": HEADER.pack(8 + 65_537, 3, 0, 0, ID),
    "ack of stream 3": HEADER.pack(9, 4, 0, 0, ID) + b"\x03" + bytes(8),
    "start with a cut string": HEADER.pack(52, 2, 0, 0, ID) + bytes(36) + struct.pack("<IIII", 100, 0, 0, 0),
    "start with a giant list": HEADER.pack(52, 2, 0, 0, ID) + bytes(36) + struct.pack("<IIII", 0, 0xFFFFFFFF, 0, 0),
    "start without arguments": HEADER.pack(52, 2, 0, 0, ID) + bytes(36) + struct.pack("<IIII", 0, 0, 0, 0),
    "start with NUL": HEADER.pack(53, 2, 0, 0, ID) + bytes(36) + struct.pack("<III", 0, 1, 1) + b"\0" + bytes(4),
    "start with bytes behind": HEADER.pack(53, 2, 0, 0, ID) + bytes(36) + struct.pack("<IIII", 0, 1, 0, 0) + b"x",
    "environment without a name": HEADER.pack(58, 2, 0, 0, ID)
    + bytes(36)
    + struct.pack("<IIIII", 0, 1, 0, 1, 2)
    + b"=x",
    "environment without a value": HEADER.pack(57, 2, 0, 0, ID)
    + bytes(36)
    + struct.pack("<IIIII", 0, 1, 0, 1, 1)
    + b"x",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_frame_ends_the_connection_and_nothing_else(guest: GuestProcess, name: str) -> None:
    with guest.connect() as link:
        execution = link.started("/bin/cat", stdin_open=1)
        link.socket.sendall(BROKEN[name])
        assert link.hung_up()
    with guest.connect(hello=False) as link:
        assert link.hello().executions == (execution,)


@pytest.mark.parametrize("frame", [Ping(1), Forget(ID), Hello(0), Hello(5, version=0)])
def test_a_connection_begins_with_hello(guest: GuestProcess, frame: Ping) -> None:
    with guest.connect(hello=False) as link:
        link.send(frame)
        assert all(isinstance(answer, Stale) for answer in link.rest())


def test_noise_never_ends_the_guest(guest: GuestProcess) -> None:
    chance = random.Random(11)
    for _ in range(150):
        with guest.connect() as link:
            kind = chance.randint(2, 7)
            size = chance.choice([0, 4, 8, 9, 52, chance.randint(0, 3000)])
            body = chance.randbytes(size)
            try:
                link.socket.sendall(
                    HEADER.pack(size, kind if kind != 7 else 8, chance.randint(0, 1), 0, chance.choice([ID, bytes(16)]))
                    + body
                )
                link.socket.sendall(chance.randbytes(chance.randint(0, 100)))
            except BrokenPipeError:
                continue
    with guest.connect() as link:
        assert link.run("/bin/true").end.code == 0


def test_silent_connections_do_not_add_up(guest: GuestProcess, link: Link) -> None:
    silent = [socket.socket(socket.AF_UNIX) for _ in range(60)]
    for each in silent:
        each.connect(str(guest.socket_path))
    wait_until(lambda: guest.fds() < 25, 5, "the oldest were hung up on")
    assert link.run("/bin/true").end.code == 0
    for each in silent:
        each.close()


def test_a_host_that_does_not_read_is_still_heard(guest: GuestProcess) -> None:
    with guest.connect() as link:
        flood = link.start("/bin/sh", "-c", "yes & yes >&2")
        link.until(Output)
        doomed = link.start("/bin/sleep", "1000")
        link.send(Cancel(doomed, 0), Cancel(flood, 0))
        if guest.cgroup is not None:
            wait_until(lambda: not guest.members(doomed) and not guest.members(flood), 5, "both were killed")
        outcome = Outcome()
        while outcome.exited is None:
            frame = link.receive()
            if isinstance(frame, Exited) and frame.execution == doomed:
                outcome.take(frame)
            elif isinstance(frame, Output):
                link.send(Ack(flood, frame.stream, frame.offset + len(frame.data)))


def test_a_host_that_leaves_answers_unread_is_hung_up_on_and_memory_stays(guest: GuestProcess) -> None:
    with guest.connect() as link:
        link.socket.settimeout(1)
        pings = b"".join(encode(Ping(token)) for token in range(100_000))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            link.socket.sendall(pings)
    assert guest.rollup("Pss_Anon") < 600
    with guest.connect() as link:
        assert link.run("/bin/true").end.code == 0


def test_ends_do_not_wait_behind_the_output_of_others(link: Link) -> None:
    flood = link.start("/bin/cat", "/dev/zero")
    for _ in range(20):
        execution = link.start("/bin/true")
        between = 0
        while True:
            frame = link.receive()
            if isinstance(frame, Output):
                between += len(frame.data)
                link.send(Ack(flood, frame.stream, frame.offset + len(frame.data)))
            if isinstance(frame, Exited) and frame.execution == execution:
                break
        link.send(Forget(execution))
        assert between < 64 << 20
    link.send(Cancel(flood, 0))


def test_a_short_command_needs_few_frames_at_once(link: Link) -> None:
    execution = link.start("/bin/echo", "hi")
    kinds = [type(link.receive()) for _ in range(3)]
    assert kinds == [Started, Output, Exited]
    link.send(Ack(execution, Stream.STDOUT, 3), Forget(execution))
