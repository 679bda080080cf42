"""The process that waits for the next execution: nobody notices it, whatever happens to it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dormice.protocol.guest import Cancel, End, Forget, How, Stop, Stopped
from tests.guest.guest_process import PATIENCE, GuestProcess, Link
from tests.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(name="spare")
def _spare(guest: GuestProcess, mode: str) -> Callable[[], int]:
    """The spare's pid, once there is one."""
    if mode != "init":
        pytest.skip("process 1 only")
    children = Path(f"/proc/{guest.pid}/task/{guest.pid}/children")

    def find() -> int:
        return int(wait_until(lambda: children.read_text().split(), PATIENCE, "there is a spare")[0])

    return find


def test_an_execution_gets_it_and_another_is_made(link: Link, spare: Callable[[], int]) -> None:
    first = spare()
    execution = link.start("/bin/sh", "-c", "echo out; echo err >&2; pwd; exit 3", cwd="/tmp")
    outcome = link.follow(execution)
    assert (outcome.stdout, outcome.stderr, outcome.end.code) == (b"out\n/tmp\n", b"err\n", 3)
    assert spare() != first


def test_a_killed_one_costs_nothing_but_another(link: Link, spare: Callable[[], int]) -> None:
    for _ in range(5):
        os.kill(victim := spare(), signal.SIGKILL)
        wait_until(lambda pid=victim: not Path(f"/proc/{pid}").exists(), PATIENCE, "it is dead")  # type: ignore[misc]
        assert link.shell("echo alive").stdout == b"alive\n"


def test_a_stopped_one_runs_its_command_all_the_same(link: Link, spare: Callable[[], int]) -> None:
    os.kill(spare(), signal.SIGSTOP)
    assert link.shell("echo alive").stdout == b"alive\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_that_waits_for_it_meets_no_command(link: Link, spare: Callable[[], int], number: int) -> None:
    for _ in range(20):
        waiting = spare()
        os.kill(waiting, signal.SIGSTOP)
        os.kill(waiting, number)
        outcome = link.run("/bin/sh", "-c", "echo out; echo err >&2; exit 3")
        assert (outcome.stdout, outcome.stderr) == (b"out\n", b"err\n")
        assert (outcome.end.how, outcome.end.code) == (How.EXITED, 3)


def test_signals_from_inside_that_wait_for_it_meet_no_command(link: Link, spare: Callable[[], int]) -> None:
    spare()
    killer = link.start("/bin/sh", "-c", "kill -STOP -1; kill -TERM -1; kill -CONT -1; echo done", stdin_open=1)
    assert link.follow(killer).stdout == b"done\n"
    assert link.shell("echo alive").stdout == b"alive\n"


def test_a_cancel_of_one_that_has_not_begun_ends_it(link: Link, spare: Callable[[], int]) -> None:
    for _ in range(20):
        os.kill(spare(), signal.SIGSTOP)
        execution = link.start("/bin/sleep", "1000")
        link.send(Cancel(execution, 0))
        outcome = link.follow(execution)
        assert outcome.end.flags & End.CANCEL
        link.send(Forget(execution))


@pytest.mark.parametrize("number", ["TERM", "KILL", "STOP"])
def test_signals_to_all_inside_meet_no_later_command(link: Link, spare: Callable[[], int], number: str) -> None:
    spare()
    killer = link.start("/bin/sh", "-c", f"kill -{number} -1; echo done")
    assert link.follow(killer).stdout == b"done\n"
    for _ in range(3):
        outcome = link.shell("echo alive")
        assert (outcome.stdout, outcome.end.how, outcome.end.code) == (b"alive\n", How.EXITED, 0)


def test_what_does_not_fit_it_gets_a_process_of_its_own(link: Link, spare: Callable[[], int]) -> None:
    waiting = spare()
    long = "x" * 100_000
    assert link.run("/bin/echo", long).stdout == f"{long}\n".encode()
    many = [str(number) for number in range(2_000)]
    assert link.run("/bin/echo", *many).stdout == " ".join(many).encode() + b"\n"
    assert spare() == waiting


def test_it_holds_no_stop_up(link: Link, spare: Callable[[], int]) -> None:
    waiting = spare()
    link.send(Stop(60_000))
    link.until(Stopped)
    assert not Path(f"/proc/{waiting}").exists()
