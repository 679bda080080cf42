"""Standard input: by offset, with credit, repeated at will."""

from __future__ import annotations

import hashlib
import random

import pytest

from dormice.protocol.guest import STDIN_CREDIT_BYTES, Ack, Exited, Output, Stdin, StdinState
from tests.guest.guest_process import GuestProcess, Link, Outcome


def test_without_stdin_a_command_reads_its_end_at_once(link: Link) -> None:
    assert link.run("/usr/bin/wc", "-c").stdout == b"0\n"


def test_stdin_is_written_and_ended(link: Link) -> None:
    execution = link.start("/bin/cat", stdin_open=1)
    link.send(Stdin(execution, 0, b"hello "), Stdin(execution, 6, b"world", eof=True))
    assert link.stdin_state(execution, 11) == StdinState(execution, 11, closed=True)
    assert link.follow(execution).stdout == b"hello world"


def test_eof_may_come_alone_and_again(link: Link) -> None:
    execution = link.start("/bin/cat", stdin_open=1)
    link.send(Stdin(execution, 0, b"x"), Stdin(execution, 1, b"", eof=True), Stdin(execution, 1, b"", eof=True))
    assert link.follow(execution).stdout == b"x"


def test_bytes_that_were_taken_are_skipped(link: Link) -> None:
    execution = link.start("/bin/cat", stdin_open=1)
    link.send(
        Stdin(execution, 0, b"abc"),
        Stdin(execution, 0, b"abc"),
        Stdin(execution, 1, b"bcdef"),
        Stdin(execution, 6, b"", eof=True),
    )
    assert link.follow(execution).stdout == b"abcdef"


def test_a_large_stdin_arrives_byte_for_byte_within_the_credit(guest: GuestProcess) -> None:
    """With lost connections and repeats, while the output is read."""
    chance = random.Random(5)
    data = chance.randbytes(2_000_000)
    link = guest.connect()
    execution = link.start("/usr/bin/sha256sum", stdin_open=1)
    written, outcome = 0, Outcome()
    while outcome.exited is None:
        start = chance.randint(max(0, written - 1000), written)
        end = min(written + STDIN_CREDIT_BYTES, len(data), start + 65_536)
        if written < len(data):
            link.send(Stdin(execution, start, data[start:end], eof=end == len(data)))
        if chance.random() < 0.1:
            link.socket.close()
            link = guest.connect()
        frame = link.receive()
        outcome.take(frame)
        if isinstance(frame, StdinState):
            assert frame.written >= written
            written = frame.written
        elif isinstance(frame, Output):
            link.send(Ack(execution, frame.stream, frame.offset + len(frame.data)))
    link.socket.close()
    assert outcome.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_a_reader_that_leaves_closes_stdin_and_the_rest_is_dropped_but_counted(link: Link) -> None:
    execution = link.start("/bin/sh", "-c", "exec <&-; echo gone; exec sleep 100", stdin_open=1)
    link.until(Output)
    link.send(Stdin(execution, 0, b"x" * 1000))
    assert link.stdin_state(execution, 1000).closed
    link.send(Stdin(execution, 1000, b"y" * 65_536))
    assert link.stdin_state(execution, 66_536).closed


def test_a_full_pipe_queues_and_reports_what_was_written(link: Link) -> None:
    execution = link.started("/bin/sh", "-c", "sleep 0.3; exec cat", stdin_open=1)
    sent = 0
    for _ in range(2):
        link.send(Stdin(execution, sent, b"z" * 65_536))
        sent += 65_536
    assert link.until(StdinState).written == 65_536
    link.send(Stdin(execution, sent, b"", eof=True))
    assert link.follow(execution).stdout == b"z" * sent


def test_stdin_of_an_execution_without_is_dropped(link: Link) -> None:
    execution = link.started("/bin/sleep", "0.2")
    link.send(Stdin(execution, 0, b"secret", eof=True))
    assert link.stdin_state(execution, 6).closed
    assert link.until(Exited).code == 0


@pytest.mark.parametrize(
    "frames",
    [
        [(1, b"gap", False)],
        [(0, b"a", False), (2, b"c", False)],
        [(0, b"abc", True), (3, b"d", False)],
        [(0, b"abc", True), (0, b"ab", True)],
        [(0, b"x" * 65_536, False), (65_536, b"x" * 65_536, False), (131_072, b"x", False)],
        [((1 << 64) - 1, b"xx", False)],
    ],
    ids=["gap", "later gap", "beyond eof", "eof moved", "beyond the credit", "overflow"],
)
def test_stdin_that_breaks_the_rules_ends_the_connection_only(
    guest: GuestProcess, frames: list[tuple[int, bytes, bool]]
) -> None:
    with guest.connect() as link:
        execution = link.started("/bin/sleep", "100", stdin_open=1)
        link.send(*(Stdin(execution, offset, data, eof) for offset, data, eof in frames))
        assert link.hung_up()
    with guest.connect() as link:
        assert link.until(StdinState).execution == execution
