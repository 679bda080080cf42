"""STOP and POWEROFF: the machine's sleep."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dormice.domain.execution import Stream
from dormice.protocol.guest import Exited, How, Output, Poweroff, Reason, Refused, Stop, Stopped
from tests.guest.guest_process import GuestProcess, Link, Mode, alive
from tests.wait import wait_until


def test_stop_ends_everything_and_says_so(guest: GuestProcess, link: Link, mode: Mode) -> None:
    done = link.start("/bin/sh", "-c", "exit 3")
    link.until(Exited)
    plain = link.started("/bin/sleep", "1000")
    deaf = link.started("/bin/sh", "-c", "trap '' TERM; setsid sleep 1000 & while :; do sleep 0.05; done")
    polite = link.start("/bin/sh", "-c", "trap 'echo bye; exit 0' TERM; echo hi; while :; do sleep 0.02; done")
    link.until(Output)
    members = [pid for name in (plain, deaf, polite) for pid in guest.members(name)] if mode != "bare" else []
    link.send(Stop(300))
    ends = {}
    while True:
        frame = link.receive()
        if isinstance(frame, Exited):
            ends[frame.execution] = (frame.how, frame.code)
        if isinstance(frame, Stopped):
            break
    assert ends == {
        plain: (How.INTERRUPTED, 15),
        deaf: (How.INTERRUPTED, 9),
        polite: (How.INTERRUPTED, 0),
    }
    assert not alive(members)
    refused = link.start("/bin/true")
    assert link.receive() == Refused(refused, Reason.STOPPING)
    with guest.connect(hello=False) as newer:
        assert set(newer.hello().executions) == {done, plain, deaf, polite}
        newer.until(Stopped)
        newer.send(Poweroff())
        assert newer.hung_up()
    assert guest.ended() == 0


def test_stop_without_anything_running_is_quick(link: Link) -> None:
    link.send(Stop(60_000))
    assert link.receive() == Stopped()


def test_stopped_is_said_after_all_output_was(guest: GuestProcess) -> None:
    with guest.connect() as link:
        execution = link.start("/bin/sh", "-c", "head -c 300000 /dev/zero; echo >&2; exec sleep 1000")
        link.until(Output, lambda output: output.stream is Stream.STDERR)
        link.send(Stop(0))
        assert all(isinstance(frame, Output) for frame in link.until_silent())
    with guest.connect() as link:
        outcome = link.follow(execution)
        assert outcome.end.how is How.INTERRUPTED
        assert len(outcome.stdout) == 300_000
        assert link.receive() == Stopped()


def test_a_second_stop_without_grace_is_at_once(link: Link) -> None:
    link.start("/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    link.until(Output)
    link.send(Stop(600_000), Stop(0))
    link.until(Stopped)


def test_poweroff_needs_no_stop(guest: GuestProcess, link: Link, mode: Mode) -> None:
    execution = link.started("/bin/sh", "-c", "setsid sleep 1000 & sleep 1000")
    members = guest.members(execution) if mode != "bare" else []
    link.send(Poweroff())
    assert guest.ended() == 0
    assert not alive(members)


def test_a_signal_from_outside_stops_and_ends(guest: GuestProcess, link: Link) -> None:
    link.started("/bin/sleep", "1000")
    os.kill(guest.pid, signal.SIGTERM)
    assert link.until(Exited).how is How.INTERRUPTED
    assert guest.ended() == 0


def test_a_signal_from_inside_does_nothing(link: Link, mode: Mode) -> None:
    if mode != "init":
        pytest.skip("process 1 only")
    assert link.shell("kill 1; kill -9 1; kill -TERM -1; exit 3").end.code == 3
    assert link.shell("echo on").stdout == b"on\n"


def test_orphans_are_reaped(guest: GuestProcess, link: Link) -> None:
    link.shell("for i in $(seq 50); do (setsid sh -c 'exit 0' &) ; done; sleep 0.1")
    link.shell("true")
    children = Path(f"/proc/{guest.pid}/task/{guest.pid}/children")
    spares = int(guest.mode == "init")  # the process of the next execution
    wait_until(lambda: len(children.read_text().split()) == spares, 5, "no other child is left")
