"""Ranges of uids: never given to two machines, also when what was left in one could not be removed at first."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from tests.shares import share

from dormice.node import slots as module
from dormice.node.cgroups import Cgroups
from dormice.node.launcher import Launcher
from dormice.node.slots import RANGE_SIZE, Slot, Slots, cgroup_name

AT_ONCE = 4


@pytest.fixture(name="first_uid")
def _first_uid() -> Iterator[int]:
    with share() as ours:
        yield ours.first_uid


with_two_hierarchies = pytest.mark.skipif(
    Path("/sys/fs/cgroup/cgroup.controllers").exists(), reason="on a host of cgroup2 alone a kill reaches every process"
)


@with_two_hierarchies
def test_a_range_that_could_not_be_cleaned_is_given_to_one_of_many_who_ask_later(
    real_cgroups: Cgroups, first_uid: int
) -> None:
    launcher = Launcher()
    slots = Slots(launcher, real_cgroups, first_uid=first_uid, pool_size=0)
    barrier = Barrier(AT_ONCE)

    def take(_: int) -> Slot:
        barrier.wait()
        return slots.take()

    first = slots.take()
    assert (first.base, first.cgroup) == (first_uid, cgroup_name(first_uid))
    with subprocess.Popen(["sleep", "1000"]) as stray:
        try:
            # In one hierarchy only, and not in that by which a machine's processes are killed.
            real_cgroups.entrances(first.cgroup)[-1].write_text(str(stray.pid))
            slots.put_back(first)
            assert real_cgroups.names() == {first.cgroup}
        finally:
            stray.kill()
    with ThreadPoolExecutor() as threads:
        taken = list(threads.map(take, range(AT_ONCE)))
    assert sorted(slot.base for slot in taken) == [first_uid + RANGE_SIZE * number for number in range(AT_ONCE)]
    assert all(real_cgroups.populated(slot.cgroup) for slot in taken)
    for slot in taken:
        slots.put_back(slot)
    slots.close()
    launcher.close()
    assert real_cgroups.names() == set()


@with_two_hierarchies
def test_nobody_who_asks_for_a_range_waits_for_one_that_cannot_be_cleaned(
    real_cgroups: Cgroups, first_uid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = Launcher()
    slots = Slots(launcher, real_cgroups, first_uid=first_uid, pool_size=1)
    first = slots.take()
    with subprocess.Popen(["sleep", "1000"]) as stray:
        try:
            real_cgroups.entrances(first.cgroup)[-1].write_text(str(stray.pid))
            monkeypatch.setattr(module, "DYING_SECONDS", 0.05)
            slots.put_back(first)
            monkeypatch.setattr(
                module, "DYING_SECONDS", 100_000
            )  # who waits for the stray, waits longer than this test may take
            second = slots.take()
            slots.refill()
            third = slots.take()
        finally:
            stray.kill()
    assert [slot.base for slot in (second, third)] == [first_uid + RANGE_SIZE, first_uid + 2 * RANGE_SIZE]
    for slot in (second, third):
        slots.put_back(slot)
    slots.close()
    launcher.close()
    assert real_cgroups.names() == set()
