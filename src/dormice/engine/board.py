"""What the engine remembers of machines and open executions: a copy of the store, rebuilt from it at every start.

Everything here is keyed by machine. A row gets in only after its commit.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dormice.domain.execution import Execution, ExecutionState, Micros
from dormice.domain.machine import Machine, Phase
from dormice.engine.ended import Ended
from dormice.store.interface import LostRace

if TYPE_CHECKING:
    from dormice.engine.channel import Channel
_COPYING = (Phase.ACCEPTED, Phase.PLACEMENT_PENDING, Phase.STARTING)


@dataclass(eq=False, slots=True)
class LiveMachine:
    """A machine that is not destroyed, and its unfinished executions."""

    machine: Machine
    last_activity_at: Micros
    """What autosleep counts from, by the steady clock: the last execution's end, wake or change."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the machine itself (phase, sizes, desires) is being changed."""
    attached: bool = False
    """Its guest answers, so claims can be made and start frames sent."""
    queue: OrderedDict[str, Execution] = field(default_factory=OrderedDict)
    """Unclaimed executions in state `queued`, first in first out."""
    waking: OrderedDict[str, Execution] = field(default_factory=OrderedDict)
    """Executions in `wake_in_progress`."""
    claimed: dict[str, Execution] = field(default_factory=dict)
    """Executions that hold a slot: claimed for the present boot."""
    reserved: int = 0
    """Slots promised to claims that are being committed."""
    condemned: str = ""
    """Why the present boot is being ended although nobody has asked for that."""
    closing: bool = False
    """Its stop is being committed: whatever arrives now waits for the next wake."""
    arriving: int = 0
    """Executions that are being committed: they hold the machine awake already."""
    channels: dict[str, Channel] = field(default_factory=dict)
    """What is held open in the present boot."""
    connections: int = 0
    """How many are logged in by SSH: they hold it awake, also while they do nothing."""
    ended: Ended = field(default_factory=Ended)
    """Executions that ended last."""
    asked_again: set[str] = field(default_factory=set)
    """Open executions whose guest was asked to say again what is missing of their output."""

    @property
    def awake(self) -> bool:
        """Whether executions can be queued for the present boot."""
        return self.machine.phase is Phase.RUNNING and not self.closing

    @property
    def open_executions(self) -> int:
        """How many executions have not ended; never too few: one that is being claimed may count twice."""
        return len(self.queue) + len(self.waking) + len(self.claimed) + self.arriving + self.reserved

    def lose_channels(self, why: str) -> None:
        """End every channel: the present boot is over."""
        for channel in list(self.channels.values()):
            channel.lost(why)

    def free_slots(self, limit: int) -> int:
        """How many more executions may be claimed."""
        return limit - len(self.claimed) - self.reserved

    def find(self, execution_id: str) -> Execution | None:
        """Return an open execution."""
        return self.claimed.get(execution_id) or self.queue.get(execution_id) or self.waking.get(execution_id)

    def place(self, execution: Execution) -> None:
        """Put an execution where its present state says; a terminal one is dropped. One in the queue keeps its turn."""
        if execution.id in self.ended:
            return
        if execution.terminal:
            self.drop(execution.id)
            return
        execution = _newest(self.find(execution.id), execution)
        home = self._home(execution)
        for place in (self.claimed, self.queue, self.waking):
            if place is home:
                place[execution.id] = execution
            else:
                place.pop(execution.id, None)

    def _home(self, execution: Execution) -> dict[str, Execution]:
        if execution.boot_id is not None:
            return self.claimed
        return self.waking if execution.state is ExecutionState.WAKE_IN_PROGRESS else self.queue

    def refresh(self, execution: Execution) -> None:
        """Take in a newer row of an execution that is still open; one that has ended meanwhile stays gone."""
        if execution.terminal:
            self.drop(execution.id)  # also one that is nowhere, because it is just being claimed
            return
        current = self.find(execution.id)
        if current is not None and current.last_sequence <= execution.last_sequence:
            self.place(execution)

    def lost_race(self, execution_id: str, race: LostRace) -> None:
        """Forget an execution whose row was not written because it has ended."""
        if not isinstance(race.current, Execution) or race.current.terminal:
            self.drop(execution_id)

    def drop(self, execution_id: str) -> None:
        """Forget an execution that has ended, whatever is heard of it later."""
        self.ended.add(execution_id)
        self.claimed.pop(execution_id, None)
        self.queue.pop(execution_id, None)
        self.waking.pop(execution_id, None)
        self.asked_again.discard(execution_id)


def _newest(current: Execution | None, row: Execution) -> Execution:
    """Keep of `current` what callers have written since `row` was read: commits are not heard of in their order."""
    if current is None or (
        current.stdin_offset <= row.stdin_offset
        and current.stdin_eof <= row.stdin_eof
        and (current.cancel_requested_at is None or row.cancel_requested_at is not None)
    ):
        return row
    return replace(
        row,
        stdin_offset=max(current.stdin_offset, row.stdin_offset),
        stdin_eof=current.stdin_eof or row.stdin_eof,
        cancel_requested_at=row.cancel_requested_at or current.cancel_requested_at,
    )


class Board:
    """Every live machine, by id."""

    def __init__(self) -> None:
        self._ended = Ended()
        self._machines: dict[str, LiveMachine] = {}
        self._of_organization: dict[str, int] = {}
        self._copies: defaultdict[str, set[str]] = defaultdict(set)
        """Machines whose disks were still to be copied when they were added, by what they are copied from."""

    def __iter__(self) -> Iterator[LiveMachine]:
        return iter(list(self._machines.values()))

    def add(self, machine: Machine, last_activity_at: Micros) -> LiveMachine:
        """Take in a machine (again: its row is refreshed)."""
        live = self._machines.get(machine.id)
        if live is None:
            live = self._machines[machine.id] = LiveMachine(machine, last_activity_at, ended=self._ended)
            organization = machine.organization_id
            self._of_organization[organization] = self._of_organization.get(organization, 0) + 1
        live.machine = machine
        if machine.origin is not None and not machine.copied:
            self._copies[machine.origin].add(machine.id)
        return live

    def copies_of(self, origin: str) -> bool:
        """Whether a machine's disk is about to be copied from a snapshot or a machine. One that failed is not waited for."""
        pending = {copy for copy in self._copies.pop(origin, ()) if self._uncopied(copy)}
        if pending:
            self._copies[origin] = pending
        return any(self._machines[copy].machine.phase in _COPYING for copy in pending)

    def _uncopied(self, machine_id: str) -> bool:
        live = self._machines.get(machine_id)
        return live is not None and not live.machine.copied

    def get(self, machine_id: str) -> LiveMachine | None:
        """Return a live machine, whoever owns it."""
        return self._machines.get(machine_id)

    def owned(self, organization_id: str, machine_id: str) -> LiveMachine | None:
        """Return a live machine of the organization."""
        live = self._machines.get(machine_id)
        return live if live is not None and live.machine.organization_id == organization_id else None

    def count(self, organization_id: str) -> int:
        """How many live machines the organization has."""
        return self._of_organization.get(organization_id, 0)

    def remove(self, machine_id: str) -> None:
        """Forget a destroyed machine."""
        live = self._machines.pop(machine_id, None)
        if live is not None:
            self._of_organization[live.machine.organization_id] -= 1
