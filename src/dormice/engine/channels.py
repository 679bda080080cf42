"""Opens channels (channel.py) into machines, which it wakes, and passes on what their guests say of them."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from uuid import UUID

from dormice.domain.errors import Conflict, NotFound, RateLimited, Unavailable
from dormice.domain.ids import canonical_machine_id, execution_of
from dormice.domain.limits import Limits
from dormice.domain.machine import GOING, Phase
from dormice.engine.board import Board, LiveMachine
from dormice.engine.channel import Channel, ChannelOrder, Report
from dormice.engine.clock import Clock, new_execution_id
from dormice.engine.feed import Feed
from dormice.engine.gateway import Gateway
from dormice.engine.lifecycle import Guard, Lifecycle
from dormice.engine.orders import Caller
from dormice.engine.tasks import Tasks


class Channels:
    """The channels of every machine. A machine that has one is held awake."""

    def __init__(
        self,
        *,
        board: Board,
        lifecycle: Lifecycle,
        gateway: Gateway,
        feed: Feed,
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._board = board
        self._lifecycle = lifecycle
        self._gateway = gateway
        self._feed = feed
        self._tasks = tasks
        self._clock = clock
        self._limits = limits

    async def open(self, caller: Caller, machine_id: str, order: ChannelOrder) -> Channel:
        """Start a process in the machine, which is woken for it. The caller has to close the channel.

        Raises Invalid (the order cannot be sent), NotFound, Conflict (the machine has failed or is being deleted), RateLimited (too many channels),
        Unavailable (the machine did not come up in time, or the server stops).
        """
        live = await self.awake(caller, machine_id)
        limit = self._limits.channels_per_machine
        if len(live.channels) >= limit:
            raise RateLimited(
                f"the machine has {limit} channels open (channels_per_machine); close one",
                retry_after_ms=self._limits.retry_after_ms,
            )
        channel = Channel(new_execution_id(self._clock), live, order, self._gateway.send, self._limits.drain_grace_ms)
        channel.start()
        return channel

    async def awake(self, caller: Caller, machine_id: str) -> LiveMachine:
        """Return the machine once it runs and its guest answers, woken if need be. Raises as `open` does."""
        deadline = self._clock.steady() + self._limits.channel_wake_ms * 1000
        while True:
            live = self.admit(caller, machine_id)
            if live.awake and live.attached:
                return live
            left = deadline - self._clock.steady()
            if left <= 0 or self._feed.closing:
                why = "the server stops" if self._feed.closing else "the machine did not come up in time"
                raise Unavailable(f"{why}; try again", retry_after_ms=1_000)
            with self._feed.listen(live.machine.id) as hint:
                await self._tasks.finish(self.wake(live))
                if not (live.awake and live.attached):
                    await hint.wait(left / 1_000_000)

    def admit(self, caller: Caller, machine_id: str, refusal: str = "nothing can be opened in it") -> LiveMachine:
        """Return the machine, awake or not. Raises NotFound, Conflict."""
        live = self._board.owned(caller.organization_id, canonical_machine_id(machine_id) or "")
        if live is None:
            raise NotFound("no such machine")
        phase = live.machine.phase
        if phase in (Phase.FAILED, Phase.DESTROYING):
            observed = "error" if phase is Phase.FAILED else phase.value
            raise Conflict(
                f"the machine is {phase.value}: {refusal}",
                details={"current_observed_state": observed},
            )
        return live

    async def wake(self, live: LiveMachine) -> None:
        """Begin to wake a machine, if it can be woken and is not awake. To be run in a task that nobody cancels."""
        async with live.lock:
            if not live.awake and live.machine.phase not in {Phase.FAILED, *GOING}:
                await self._lifecycle.wake(live, Guard(None, None))

    def of(self, machine_id: str) -> list[str]:
        """Return the ids of what is open in a machine."""
        live = self._board.get(machine_id)
        return list(live.channels) if live is not None else []

    # What the guests say

    def hear(self, live: LiveMachine, message: Report) -> bool:
        """Pass on a report; False if it is about no channel."""
        channel = live.channels.get(execution_of(message.execution))
        if channel is None:
            return False
        channel.hear(message)
        if not live.channels:
            live.last_activity_at = self._clock.steady()
        return True

    def detached(self, live: LiveMachine) -> None:
        """Have the channels of the machine wait: what is sent from now on would be lost."""
        for channel in live.channels.values():
            channel.detached()

    def attached(self, live: LiveMachine, boot_id: UUID, known: AbstractSet[str]) -> None:
        """Have the channels of the machine go on: a guest that was attached to anew says what it knows."""
        if boot_id == live.machine.boot_id:
            for channel in list(live.channels.values()):
                channel.attached(known=channel.id in known)

    def ready(self, live: LiveMachine) -> None:
        """Wake those who wait to open one: the guest answers."""
        self._feed.notify(live.machine.id)
