"""A guest that has no descriptors or memory left: what was to end still ends."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dormice.protocol.guest import End, Exited, How
from tests.guest.guest_process import GuestProcess, Link, Mode, alive

TREE = "setsid sleep 1000 & sleep 1000"


@pytest.fixture(name="complaining")
def _complaining(mode: Mode) -> Iterator[GuestProcess]:
    """A guest that may say what is wrong."""
    with tempfile.TemporaryDirectory(prefix="dormice-guest-") as directory:
        guest = GuestProcess(Path(directory), mode)
        try:
            yield guest
        finally:
            guest.close()


def _starve(guest: GuestProcess, limit: int, most: int) -> tuple[int, int]:
    """Lower a limit of the guest; what it was before."""
    return resource.prlimit(guest.pid, limit, (most, resource.prlimit(guest.pid, limit)[1]))


@pytest.mark.parametrize("mode", ["init"], indirect=True)
def test_what_can_be_killed_in_no_other_way_dies_with_the_machine(complaining: GuestProcess) -> None:
    with complaining.connect() as link:
        execution = link.started("/bin/sh", "-c", TREE, timeout_ms=300)
        members = complaining.members(execution)
        _starve(complaining, resource.RLIMIT_NOFILE, 1)
        assert link.hung_up()
        assert complaining.ended() == 0
        assert not alive(members)


@pytest.mark.parametrize("mode", ["init", "cgroup"], indirect=True)
def test_a_kill_for_which_there_was_no_descriptor_is_tried_again(link: Link, guest: GuestProcess) -> None:
    execution = link.started("/bin/sh", "-c", TREE, timeout_ms=300)
    before = _starve(guest, resource.RLIMIT_NOFILE, 1)
    assert link.until_silent(0.8) == []
    assert guest.members(execution)
    resource.prlimit(guest.pid, resource.RLIMIT_NOFILE, before)
    outcome = link.follow(execution)
    assert (outcome.end.how, outcome.end.flags) == (How.SIGNALLED, End.TIMEOUT)
    assert guest.members(execution) == []


def test_output_waits_for_memory(link: Link, guest: GuestProcess) -> None:
    execution = link.started("/bin/sh", "-c", "sleep 0.2; echo hello")
    before = _starve(guest, resource.RLIMIT_AS, 1)
    assert link.until_silent(1) == []
    resource.prlimit(guest.pid, resource.RLIMIT_AS, before)
    assert link.follow(execution).stdout == b"hello\n"


@pytest.mark.parametrize("mode", ["init", "cgroup"], indirect=True)
def test_no_end_waits_for_memory_for_ever(link: Link, guest: GuestProcess) -> None:
    execution = link.started("/bin/sh", "-c", "sleep 0.2; echo hello; sleep 1000", timeout_ms=500)
    _starve(guest, resource.RLIMIT_AS, 1)
    end = link.receive(15)
    assert isinstance(end, Exited)
    assert (end.execution, end.flags, end.stdout_total, end.stdout_kept) == (execution, End.TIMEOUT, 6, 0)
