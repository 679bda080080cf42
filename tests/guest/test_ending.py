"""How executions end: drain, daemons, timeouts, cancels; nothing survives that should not."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import uuid4

import pytest

from dormice.protocol.guest import Ack, Cancel, End, Exited, Forget, How, Output, Reason, Refused, Stdin
from tests.guest.guest_process import GuestProcess, Link, Mode, Outcome, alive
from tests.wait import wait_until

ESCAPES = {
    "setsid": "setsid sleep 1000 & sleep 1000",
    "double fork": "(setsid sh -c 'sleep 1000 & sleep 1000' &) ; sleep 1000",
    "stopped": "sleep 1000 & kill -STOP $!; kill -STOP $$; sleep 1000",
    "deaf to SIGTERM": "trap '' TERM; sleep 1000 & (trap '' TERM; setsid sh -c 'sleep 1000; sleep 1000') ; sleep 1000",
    "closes its output": "exec >&- 2>&-; sleep 1000 & sleep 1000",
    "forks without end": "while :; do sleep 1000 & sleep 0.02; done",
}


def test_output_of_a_child_that_ends_soon_is_still_taken(link: Link) -> None:
    outcome = link.shell("(sleep 0.1; echo late) & echo early", drain_grace_ms=5000)
    assert outcome.stdout == b"early\nlate\n"
    assert outcome.end.flags == End.NONE


def test_a_child_that_keeps_the_pipe_is_waited_for_no_longer_than_the_grace(link: Link) -> None:
    before = time.monotonic()
    outcome = link.shell("sleep 5 & echo done", drain_grace_ms=100)
    assert 0.1 <= time.monotonic() - before < 3
    assert (outcome.stdout, outcome.end.code, outcome.end.flags) == (b"done\n", 0, End.DRAIN)


def test_a_child_that_never_stops_talking_does_not_hold_the_end_up_beyond_the_kept_limit(link: Link) -> None:
    outcome = link.shell("yes & echo $! >&2", drain_grace_ms=500, kept_limit=1 << 20)
    assert outcome.end.stdout_kept == 1 << 20
    assert outcome.end.flags == End.DRAIN
    assert link.shell(f"kill {outcome.stderr.decode()}").end.code == 0


def test_a_child_that_talks_now_and_then_does_not_hold_the_end_up(link: Link) -> None:
    outcome = link.shell("(for i in $(seq 200); do sleep 0.02; echo $i; done) &", drain_grace_ms=100)
    assert 0 < len(outcome.stdout.split()) < 50


def test_a_daemon_left_on_purpose_lives_on_and_meets_no_sigpipe(link: Link, guest: GuestProcess) -> None:
    flag = guest.home / "flag"
    link.shell("true")
    before = guest.settled_fds()
    script = f"(while [ ! -e {flag} ]; do echo tick; sleep 0.02; done; echo end; touch {flag}.survived) &"
    outcome = link.shell(script, drain_grace_ms=50)
    assert outcome.end.code == 0
    flag.touch()
    wait_until((guest.home / "flag.survived").exists, 10, "the daemon survived")
    if guest.cgroup is not None:
        wait_until(lambda: not guest.used_cgroups(), 10, "its cgroup is removed")
    link.shell("true")
    wait_until(lambda: guest.fds() == before, 5, "descriptors are as before")


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_timeout_kills_the_whole_tree_at_once(link: Link, guest: GuestProcess, escape: str, mode: Mode) -> None:
    execution = link.started("/bin/sh", "-c", ESCAPES[escape], timeout_ms=300)
    members = guest.members(execution) if mode != "bare" else []
    outcome = link.follow(execution)
    assert (outcome.end.how, outcome.end.code) == (How.SIGNALLED, 9)
    assert End.TIMEOUT in outcome.end.flags
    assert 0.25e9 <= outcome.end.ended_at - outcome.end.started_at < 3e9
    if mode != "bare":
        assert guest.members(execution) == []
    assert not alive(members)


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_cancelled_tree_is_gone_when_it_says_so(link: Link, guest: GuestProcess, escape: str, mode: Mode) -> None:
    execution = link.started("/bin/sh", "-c", ESCAPES[escape])
    if mode != "bare":
        wait_until(lambda: len(guest.members(execution)) > 1, 10, "the tree has grown")
    link.send(Cancel(execution, 200))
    outcome = link.follow(execution)
    assert End.CANCEL in outcome.end.flags
    assert outcome.end.how is How.SIGNALLED
    if mode != "bare":
        assert guest.members(execution) == []


def test_a_cancel_leaves_time_to_tidy_up(link: Link) -> None:
    execution = link.start("/bin/sh", "-c", "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    frame = link.until(Output)
    link.send(Ack(execution, frame.stream, 6), Cancel(execution, 10_000))
    outcome = Outcome()
    outcome.take(frame)
    link.follow(execution, outcome)
    assert outcome.end.flags == End.CANCEL
    assert (outcome.end.how, outcome.end.code) == (How.EXITED, 7)
    assert outcome.end.stdout_total == len("ready\nbye\n")


def test_a_second_cancel_without_grace_kills_at_once(link: Link) -> None:
    execution = link.start("/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    link.until(Output)
    link.send(Cancel(execution, 1_000_000), Cancel(execution, 500), Cancel(execution, 0))
    assert link.follow(execution).end.code == 9


def test_a_cancel_inside_the_drain_counts_and_kills_what_is_left(link: Link, guest: GuestProcess, mode: Mode) -> None:
    execution = link.start("/bin/sh", "-c", "sleep 1000 & echo $$", drain_grace_ms=60_000)
    leader = int(link.until(Output).data)
    if mode == "bare":
        wait_until(lambda: not Path(f"/proc/{leader}").exists(), 10, "the leader is gone")
    else:
        wait_until(lambda: len(guest.members(execution)) == 1, 10, "the leader is gone")
    link.send(Cancel(execution, 5_000))
    outcome = Outcome()
    while outcome.exited is None:
        outcome.exited = link.until(Exited)
    assert (outcome.end.how, outcome.end.code, outcome.end.flags) == (How.EXITED, 0, End.CANCEL)
    if mode != "bare":
        assert guest.members(execution) == []


def test_a_timeout_inside_the_drain_counts(link: Link) -> None:
    outcome = link.shell("sleep 1000 & echo ready", drain_grace_ms=60_000, timeout_ms=200)
    assert (outcome.end.how, outcome.end.code, outcome.end.flags) == (How.EXITED, 0, End.TIMEOUT)


def test_a_timeout_needs_no_connection(guest: GuestProcess) -> None:
    with guest.connect() as link:
        execution = link.started("/bin/sleep", "1000", timeout_ms=100)
    if guest.cgroup is not None:
        wait_until(lambda: not guest.members(execution), 5, "it was killed")
    with guest.connect() as link:
        end = link.until(Exited)
        assert (end.code, end.flags) == (9, End.TIMEOUT)


def test_a_cancel_of_what_has_ended_is_nothing(link: Link) -> None:
    execution = link.start("/bin/true")
    link.until(Exited)
    link.send(Cancel(execution, 0), Forget(execution))
    assert link.run("/bin/true").end.flags == End.NONE


def test_a_cancelled_id_is_refused_until_the_boot_ends(link: Link) -> None:
    ids = [uuid4().bytes for _ in range(300)]
    link.send(*(Cancel(execution, 0) for execution in ids))
    for execution in ids * 2:
        link.start("/bin/true", execution=execution)
        assert link.expect(Refused) == Refused(execution, Reason.CANCELLED)
    assert link.run("/bin/true").end.code == 0


def test_forget_makes_an_id_unknown_and_before_the_end_breaks_the_protocol(link: Link) -> None:
    execution = link.start("/bin/true")
    link.until(Exited)
    link.send(Forget(execution), Forget(execution))
    assert link.run("/bin/true", execution=execution).end.code == 0
    link.send(Forget(link.started("/bin/sleep", "1000")))
    assert link.hung_up()


def test_nothing_leaks_over_many_executions(link: Link, guest: GuestProcess) -> None:
    link.shell("sleep 0.01 & true")
    fds, memory = guest.settled_fds(), guest.rollup("Pss_Anon")
    for _ in range(20):
        ids = [link.start("/bin/sh", "-c", "echo out; echo err >&2; cat", stdin_open=0) for _ in range(25)]
        outcomes = 0
        while outcomes < len(ids):
            frame = link.receive()
            if isinstance(frame, Exited):
                outcomes += 1
                link.send(Forget(frame.execution))
    link.shell("true")
    wait_until(lambda: guest.fds() == fds, 5, "descriptors are as before")
    assert guest.rollup("Pss_Anon") <= memory + 40
    if guest.cgroup is not None:
        wait_until(lambda: not guest.used_cgroups(), 5, "cgroups are removed")


def test_cgroups_that_a_crowd_needed_are_let_go(link: Link, guest: GuestProcess) -> None:
    if guest.cgroup is None:
        pytest.skip("without cgroups")
    ids = [link.start("/bin/sh", "-c", "read line", stdin_open=1) for _ in range(40)]
    wait_until(lambda: len(guest.used_cgroups()) == len(ids), 10, "all run")
    link.send(*(Stdin(execution, 0, b"\n") for execution in ids))
    for _ in ids:
        link.until(Exited)
    link.send(*map(Forget, ids))
    assert len(guest.cgroups()) > 30
    wait_until(lambda: len(guest.cgroups()) <= 8 + (guest.mode == "init"), 10, "most are gone")
    assert link.run("/bin/true").end.code == 0
