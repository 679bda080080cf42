"""The crashes that are hard to meet by chance, each made to happen exactly. All is judged by the history checker besides."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random

import pytest

from dormice.crash_points import CrashPoint
from tests.faults.commands import START, Echoes, Writes
from tests.faults.evidence import collect
from tests.faults.history import Found, History, violations
from tests.faults.load import Load
from tests.faults.stack import KEPT_LIMIT, Victim
from tests.wait import wait_until_async

SHORT = Writes(1, 3, 0)
LONG = Writes(12, 20, 0.1)
FLOOD = Writes(3, 1500, 0.2)
SECONDS = 20.0
_seeds = count()


@dataclass(eq=False, slots=True)
class Case:
    """One machine, and what becomes of what it is asked."""

    victim: Victim
    history: History
    load: Load
    machine: str = ""
    group: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)

    def run(self, command: Writes | Echoes, cancel_after: float | None = None) -> asyncio.Task[None]:
        """Have a client ask for this, and stay with it to its end."""
        return self.group.create_task(self.load.run(self.machine, command, cancel_after=cancel_after))

    async def reach(self, point: CrashPoint) -> None:
        """Wait until an armed point was reached."""
        await until(lambda: self.victim.struck(point), f"{point} reached")

    async def started(self, count: int = 1) -> None:
        """Wait until so many commands have begun."""
        marks = self.victim.marks / self.machine
        await until(lambda: marks.exists() and marks.read_text().count(START) >= count, f"{count} started")

    def signal_guest(self, number: int) -> None:
        """Send a signal to process 1 of the machine."""
        pid = self.victim.guest(self.machine)
        assert pid is not None
        os.kill(pid, number)

    def lose(self) -> None:
        """Kill process 1 of the machine."""
        self.history.disturbed.add(self.machine)
        assert self.victim.kill_machine(self.machine)

    @property
    def rows(self) -> list[Found]:
        """What the machine was asked, as it ended."""
        return [row for row in self.history.found if row.machine_id == self.machine]


async def until(condition: object, what: str) -> None:
    assert callable(condition)

    async def ask() -> bool:
        return bool(condition())

    await wait_until_async(ask, SECONDS, what)


@asynccontextmanager
async def case(victim: Victim, autosleep: str = "never") -> AsyncIterator[Case]:
    """Make a machine; at the end wait for all that it was asked, and see that no promise was broken."""
    seed = next(_seeds)
    history = History(seed, KEPT_LIMIT)
    made = Case(victim, history, Load(victim, history, Random(seed), leave=0))
    made.machine = await made.load.make_machine(256, autosleep)
    try:
        async with made.group:
            yield made
    finally:
        victim.disarm()
    await asyncio.to_thread(collect, victim, history)
    others = {row.token for row in history.found if row.machine_id != made.machine}
    history.found = made.rows
    history.machines = {made.machine: history.machines[made.machine]}
    for token, mark in [key for key in history.marks if key[0] in others]:
        del history.marks[token, mark]
    assert violations(history) == []


@pytest.mark.parametrize("point", [CrashPoint.EXECUTION_COMMITTED, CrashPoint.START_SENT, CrashPoint.REPORT_RECEIVED])
async def test_a_create_that_was_never_answered_and_is_asked_again_is_one_execution(
    victim: Victim, point: CrashPoint
) -> None:
    async with case(victim) as it:
        victim.arm(point)
        it.run(SHORT)
        await it.reach(point)
    assert [row.state for row in it.rows] == ["succeeded"]


@pytest.mark.parametrize("guest_goes_on", ["before", "after"])
async def test_a_start_frame_unread_in_a_guest_whose_node_was_killed_starts_once(
    victim: Victim, guest_goes_on: str
) -> None:
    async with case(victim) as it:
        it.signal_guest(signal.SIGSTOP)
        victim.arm(CrashPoint.EXECUTION_WRITTEN)
        it.run(SHORT)
        await it.reach(CrashPoint.EXECUTION_WRITTEN)
        if guest_goes_on == "after":  # the guest then finds the new node's connection beside the dead one's frame
            path = f"{it.machine}.sock"
            await until(lambda: _connections(path) > 1, "the next node has called")
        it.signal_guest(signal.SIGCONT)
    assert [row.state for row in it.rows] == ["succeeded"]


def _connections(path: str) -> int:
    return Path("/proc/net/unix").read_text().count(path)


@pytest.mark.parametrize("server", ["lives", "dies"])
async def test_a_machine_that_dies_between_claim_and_start_fails_what_was_claimed(victim: Victim, server: str) -> None:
    async with case(victim) as it:
        it.signal_guest(signal.SIGSTOP)
        point = CrashPoint.EXECUTION_COMMITTED if server == "dies" else CrashPoint.EXECUTION_WRITTEN
        victim.arm(point)
        claimed = it.run(SHORT)
        await it.reach(point)
        it.lose()
        await claimed
        it.run(SHORT)
    assert [row.error_code for row in it.rows] == ["machine_lost", None]
    assert not [token for token, _ in it.history.marks if token == it.rows[0].token]


@pytest.mark.parametrize("frozen", ["server", "node"])
async def test_a_guest_that_dies_with_unacknowledged_output_leaves_the_head_of_it(victim: Victim, frozen: str) -> None:
    async with case(victim) as it:
        it.run(LONG)
        await it.started()
        pid = victim.live.part(frozen)
        os.kill(pid, signal.SIGSTOP)
        it.run(SHORT)  # is asked of a server that hangs, or of a node
        it.lose()
        os.kill(pid, signal.SIGCONT)
    assert ("failed", "machine_lost") in [(row.state, row.error_code) for row in it.rows]


@pytest.mark.parametrize("point", [CrashPoint.CANCEL_COMMITTED, CrashPoint.CANCEL_RECEIVED, CrashPoint.EXIT_HEARD])
async def test_a_cancel_that_races_the_exit_ends_one_way(victim: Victim, point: CrashPoint) -> None:
    async with case(victim) as it:
        victim.arm(point)
        for number in range(30):
            it.run(Writes(1, 5, 0.3), cancel_after=0.25 + number * 0.005)
    assert {row.state for row in it.rows} <= {"cancelled", "succeeded"}
    assert len(it.rows) == 30


@pytest.mark.parametrize("point", [CrashPoint.SLEEP_COMMITTED, CrashPoint.GUEST_STOPPED, CrashPoint.BOOT_ENDED])
async def test_a_sleep_that_races_what_is_asked_loses_nothing(victim: Victim, point: CrashPoint) -> None:
    async with case(victim) as it:
        victim.arm(point)
        for number in range(30):
            it.run(SHORT if number % 2 else LONG)
            if number == 15:
                it.group.create_task(it.load.put_to_sleep(it.machine))
    assert len(it.rows) == 30


@pytest.mark.parametrize("point", [CrashPoint.DOZE_COMMITTED, CrashPoint.STOP_RECEIVED, CrashPoint.MACHINE_ENDED])
async def test_what_is_asked_of_a_machine_that_falls_asleep_runs(victim: Victim, point: CrashPoint) -> None:
    async with case(victim, autosleep="1s") as it:
        victim.arm(point)
        await it.reach(point)
        for _ in range(10):
            it.run(SHORT)
    assert [row.state for row in it.rows] == ["succeeded"] * 10


@pytest.mark.parametrize("die", ["supervisor", "server and node", "all of them"])
async def test_commands_go_on_while_everything_above_them_dies(victim: Victim, die: str) -> None:
    async with case(victim) as it:
        for _ in range(10):
            it.run(LONG)
        it.run(FLOOD)
        await it.started(11)
        if die != "supervisor":
            victim.kill("server", "node")
        if die != "server and node":
            victim.kill_supervisor()
            await asyncio.to_thread(victim.live.start)
    assert [row.state for row in it.rows] == ["succeeded"] * 11
