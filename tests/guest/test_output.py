"""Output: byte-exact, bounded, fair; windows, acknowledgements and the kept limit."""

from __future__ import annotations

import contextlib
import hashlib
import random

import pytest

from dormice.domain.execution import Stream
from dormice.protocol.guest import STREAM_WINDOW_BYTES, Ack, End, Exited, Forget, Output
from tests.guest.guest_process import GuestProcess, Link, Outcome
from tests.wait import wait_until

MACHINE_WINDOW_BYTES = 4 << 20
NOISE = "import sys,random; r = random.Random({seed}); [sys.std{name}.buffer.write(r.randbytes({piece})) for _ in range({count})]"


def noise(name: str, seed: int, piece: int, count: int) -> list[str]:
    return ["/usr/bin/python3", "-I", "-c", NOISE.format(name=name, seed=seed, piece=piece, count=count)]


def expected(seed: int, piece: int, count: int) -> str:
    generator = random.Random(seed)
    return hashlib.sha256(b"".join(generator.randbytes(piece) for _ in range(count))).hexdigest()


def drain_without_acks(link: Link, execution: bytes, outcome: Outcome) -> Outcome:
    """All that comes while nothing is acknowledged."""
    silence = 0.3
    try:
        while outcome.exited is None:
            frame = link.receive(silence)
            if getattr(frame, "execution", None) == execution:
                outcome.take(frame)
    except TimeoutError:
        pass
    return outcome


def test_all_bytes_of_both_streams_arrive_in_order(link: Link) -> None:
    outcome = link.run(*noise("out", 1, 70_001, 60))
    assert hashlib.sha256(outcome.stdout).hexdigest() == expected(1, 70_001, 60)
    outcome = link.run(*noise("err", 2, 333, 900))
    assert hashlib.sha256(outcome.stderr).hexdigest() == expected(2, 333, 900)
    assert outcome.end.stderr_total == outcome.end.stderr_kept == 333 * 900


def test_without_acknowledgements_a_stream_stops_at_its_window(link: Link) -> None:
    execution = link.start("/usr/bin/head", "-c", "1M", "/dev/zero")
    outcome = drain_without_acks(link, execution, Outcome())
    assert len(outcome.stdout) == STREAM_WINDOW_BYTES
    assert outcome.exited is None
    link.send(Ack(execution, Stream.STDOUT, 100_000))
    drain_without_acks(link, execution, outcome)
    assert len(outcome.stdout) == STREAM_WINDOW_BYTES + 100_000
    link.send(Ack(execution, Stream.STDOUT, len(outcome.stdout)))
    assert len(link.follow(execution, outcome).stdout) == 1 << 20


def test_an_execution_that_talks_little_ends_without_acknowledgements(link: Link) -> None:
    execution = link.start("/usr/bin/head", "-c", str(STREAM_WINDOW_BYTES), "/dev/zero")
    outcome = drain_without_acks(link, execution, Outcome())
    assert outcome.end.stdout_total == STREAM_WINDOW_BYTES


@pytest.mark.parametrize("kept", [0, 1, 4096, 100_000, STREAM_WINDOW_BYTES + 1])
def test_beyond_the_kept_limit_bytes_are_counted(link: Link, kept: int) -> None:
    outcome = link.run("/usr/bin/head", "-c", "3000000", "/dev/zero", kept_limit=kept)
    assert len(outcome.stdout) == outcome.end.stdout_kept == kept
    assert outcome.end.stdout_total == 3_000_000


def test_the_kept_limit_holds_for_each_stream(link: Link) -> None:
    outcome = link.shell("echo 123456; echo abcdef >&2", kept_limit=4)
    assert (outcome.stdout, outcome.stderr) == (b"1234", b"abcd")
    assert (outcome.end.stdout_total, outcome.end.stderr_total) == (7, 7)


def test_a_flood_leaves_memory_flat(link: Link, guest: GuestProcess) -> None:
    link.shell("true")
    before = guest.rollup("Pss_Anon")
    outcome = link.run("/usr/bin/head", "-c", "1G", "/dev/zero", kept_limit=1 << 20)
    assert outcome.end.stdout_total == 1 << 30
    assert guest.rollup("Pss_Anon") <= before + 32
    assert guest.rollup("Pss") < 1024


def test_many_floods_share_the_window_of_the_machine_and_none_starves(link: Link, guest: GuestProcess) -> None:
    executions = [
        link.start("/bin/sh", "-c", "head -c 1M /dev/zero & head -c 1M /dev/zero >&2; wait") for _ in range(64)
    ]
    outcomes = {execution: Outcome() for execution in executions}
    try:
        while True:
            frame = link.receive(1.0)
            outcomes[frame.execution].take(frame)  # type: ignore[union-attr]
    except TimeoutError:
        pass
    held = [len(data) for outcome in outcomes.values() for data in outcome.output.values()]
    assert min(held) >= 4096
    assert MACHINE_WINDOW_BYTES // 2 <= sum(held) <= MACHINE_WINDOW_BYTES + len(held) * 4096
    assert guest.rollup("Pss_Anon") < 8192
    for execution, outcome in outcomes.items():
        for stream, data in outcome.output.items():
            link.send(Ack(execution, stream, len(data)))
    while not all(outcome.exited for outcome in outcomes.values()):
        frame = link.receive()
        execution = frame.execution  # type: ignore[union-attr]
        outcomes[execution].take(frame)
        if isinstance(frame, Output):
            link.send(Ack(execution, frame.stream, frame.offset + len(frame.data)))
        elif isinstance(frame, Exited):
            link.send(Forget(execution))
    assert all(len(data) == 1 << 20 for outcome in outcomes.values() for data in outcome.output.values())
    wait_until(lambda: guest.rollup("Pss_Anon") < 200, 5, "memory was given back")


def test_output_is_byte_exact_over_lost_connections_and_withheld_acknowledgements(guest: GuestProcess) -> None:
    chance = random.Random(7)
    with contextlib.ExitStack() as links:
        link = links.enter_context(guest.connect())
        execution = link.start(*noise("out", 3, 10_007, 700))
        outcome, acknowledged = Outcome(), 0
        while outcome.exited is None:
            if chance.random() < 0.04:
                links.close()
                link = links.enter_context(guest.connect())
                # What was acknowledged on the lost connection may not have been read: it is said again, as a node does.
                link.send(Ack(execution, Stream.STDOUT, acknowledged))
            frame = link.receive()
            outcome.take(frame)
            if isinstance(frame, Output):
                end = frame.offset + len(frame.data)
                withheld = len(outcome.stdout) - acknowledged < STREAM_WINDOW_BYTES // 2
                if not (withheld and chance.random() < 0.5):
                    if end > acknowledged:
                        acknowledged = chance.randint(acknowledged, end) if withheld else end
                    link.send(Ack(execution, Stream.STDOUT, acknowledged))
    assert hashlib.sha256(outcome.stdout).hexdigest() == expected(3, 10_007, 700)
    assert outcome.end.stdout_kept == 10_007 * 700


def test_a_command_that_is_only_listened_to_later_loses_nothing(guest: GuestProcess) -> None:
    with guest.connect() as link:
        execution = link.started(*noise("out", 4, 1000, 1000))
    with guest.connect() as link:
        assert hashlib.sha256(link.follow(execution).stdout).hexdigest() == expected(4, 1000, 1000)


def test_an_acknowledgement_below_an_earlier_one_is_nothing(link: Link) -> None:
    execution = link.start("/bin/sh", "-c", "echo hello; read x", stdin_open=1)
    link.until(Output)
    link.send(Ack(execution, Stream.STDOUT, 6), Ack(execution, Stream.STDOUT, 2))
    assert link.shell("echo on").stdout == b"on\n"


def test_an_acknowledgement_of_what_was_never_sent_breaks_the_protocol(link: Link) -> None:
    execution = link.start("/bin/sh", "-c", "echo hello; read x", stdin_open=1)
    link.until(Output)
    link.send(Ack(execution, Stream.STDOUT, 7))
    assert link.hung_up()


def test_a_pipe_in_packet_mode_is_read_to_its_end(link: Link) -> None:
    script = (
        "import fcntl, os; fcntl.fcntl(1, fcntl.F_SETFL, os.O_DIRECT | os.O_WRONLY)\n"
        "for i in range(50): os.write(1, b'%02d' % i)"
    )
    assert link.run("/usr/bin/python3", "-I", "-c", script).stdout == b"".join(b"%02d" % i for i in range(50))


def test_a_closed_stream_is_not_waited_for(link: Link) -> None:
    outcome = link.shell("exec >&- 2>&-; exit 4")
    assert outcome.end.code == 4
    assert outcome.end.flags == End.NONE
