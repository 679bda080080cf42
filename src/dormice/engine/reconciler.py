"""Brings the node's reports and the store together: what lives, what died, what has to be said again."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any
from uuid import UUID

from dormice.crash_points import CrashPoint, reached
from dormice.domain.execution import Execution, Micros
from dormice.domain.ids import execution_of
from dormice.domain.machine import DesiredState, Phase
from dormice.engine.autoresizing import Autoresizing
from dormice.engine.board import Board, LiveMachine
from dormice.engine.channels import Channels
from dormice.engine.clock import Clock
from dormice.engine.dispatcher import Dispatcher
from dormice.engine.lifecycle import Lifecycle
from dormice.engine.runner import Runner
from dormice.engine.service import attempt
from dormice.engine.snapshots import Snapshots
from dormice.engine.stdin import StdinFeeder
from dormice.engine.usage import Usage
from dormice.protocol import node as wire

log = logging.getLogger(__name__)

Step = Callable[[LiveMachine], Coroutine[Any, Any, None]]


class Reconciler:
    """Hears the node (it is the gateway's listener) and takes the steps that follow, machine by machine.

    Reports of executions go straight to the runner. What concerns a machine becomes a step in its mailbox; steps of one
    machine are taken in order, under its lock. A step that meets an unavailable store stays and is taken again.
    """

    def __init__(
        self,
        *,
        board: Board,
        lifecycle: Lifecycle,
        dispatcher: Dispatcher,
        runner: Runner,
        feeder: StdinFeeder,
        channels: Channels,
        snapshots: Snapshots,
        usage: Usage,
        autoresizing: Autoresizing,
        clock: Clock,
        group: asyncio.TaskGroup,
    ) -> None:
        self._board = board
        self._lifecycle = lifecycle
        self._dispatcher = dispatcher
        self._runner = runner
        self._feeder = feeder
        self._channels = channels
        self._snapshots = snapshots
        self._usage = usage
        self._autoresizing = autoresizing
        self._clock = clock
        self._group = group
        self._mailboxes: dict[str, deque[Step]] = {}
        self._connection = 0
        self.node_left_at: Micros | None = clock.steady()
        """When the node went away, by the steady clock; None while it is there."""
        self._node: wire.NodeHello | None = None
        self._images: frozenset[str] | None = None

    @property
    def capacity(self) -> tuple[float, int, int]:
        """The cores, MiB and GiB of storage of the host; without bounds as long as no node has ever said."""
        node = self._node
        return (node.vcpus, node.memory_mib, node.storage_gib) if node is not None else (1e6, 1 << 40, 1 << 30)

    @property
    def isolates(self) -> bool:
        """Whether the node keeps machines apart; True as long as no node has ever said."""
        return self._node is None or self._node.isolated

    def has_image(self, name: str) -> bool:
        """Whether the node has the image; True as long as no node has ever said."""
        return self._images is None or name in self._images

    # The gateway's listener.

    def node_joined(self, hello: wire.NodeHello) -> None:
        """Compare what lives on the node with what should."""
        reached(CrashPoint.NODE_JOINED)
        self._connection += 1
        self._node, self.node_left_at = hello, None
        seen = {machine.machine_id: UUID(bytes=machine.boot_id) for machine in hello.machines}
        log.info("node %s joined with %d machines", hello.node_id, len(seen))
        for live in self._board:
            self._post(live, partial(self._compare, boot_id=seen.pop(live.machine.id, None)))
        self._snapshots.node_joined()
        for machine_id in seen:
            words = "node has a machine that the store does not know: %s is left alone"
            log.warning(words, machine_id, extra={"machine_id": machine_id})

    def node_left(self) -> None:
        """Nothing sent is certain to have arrived; the guests keep what they have."""
        self._connection += 1
        self.node_left_at = self._clock.steady()
        log.warning("node is gone")
        for live in self._board:
            live.attached = False
            self._channels.detached(live)
            self._runner.forget(live)
            self._feeder.restart(live)

    def node_said(self, message: wire.FromNode) -> None:
        """Sort one message."""
        if isinstance(message, wire.NodeHello):
            return
        if isinstance(message, wire.NodeImages):
            self._images = frozenset(message.names)
            return
        if isinstance(message, wire.SnapshotTaken | wire.SnapshotFailed | wire.SnapshotDeleted):
            self._snapshots.node_said(message)
            return
        live = self._board.get(message.machine_id)
        if live is None:
            machine_id = message.machine_id
            log.warning("node speaks of an unknown machine: %s", machine_id, extra={"machine_id": machine_id})
            return
        match message:
            case wire.ExecutionStarted() | wire.Output() | wire.Exited() | wire.Refused():
                if not (live.channels and self._channels.hear(live, message)):
                    self._runner.report(live, message)
            case wire.StdinWritten():
                if live.channels and self._channels.hear(live, message):
                    return
                execution_id = execution_of(message.execution)
                self._feeder.written(live, execution_id, message.written, closed=message.closed)
            case wire.Attached():
                # At once, not as a step: what the guest says of its standard input follows right behind.
                self._feeder.restart(live)
                known = {execution_of(execution) for execution in message.executions}
                self._channels.attached(live, UUID(bytes=message.boot_id), known)
                connection, claimed = self._connection, dict(live.claimed)
                self._post(live, lambda live: self._attached(live, message, known, connection, claimed))
            case wire.MachineFailed():
                self._post(live, lambda live: self._failed(live, message))
            case wire.MachineEnded():
                self._post(live, lambda live: self._ended(live, message))
            case wire.DiskCopied():
                self._post(live, self._lifecycle.disk_copied)
            case wire.MachineDestroyed():
                self._post(live, self._destroyed)
            case wire.MachineResized():
                self._post(live, partial(self._resized, message=message))
            case wire.MachineUsed():
                self._usage.report(live, message)
            case wire.MachineShort():
                memory_mib = self.capacity[1]
                self._post(live, lambda live: self._autoresizing.short(live, message, memory_mib))

    def want_running(self, live: LiveMachine) -> None:
        """Have the machine started soon, if it still has to be."""
        self._post(live, self._wanted)

    # Steps.

    async def _wanted(self, live: LiveMachine) -> None:
        phase = live.machine.phase
        if phase is Phase.ACCEPTED or _sleeps_in(live):
            await self._lifecycle.start(live)
        elif phase is Phase.RUNNING:
            if live.waking:
                self._dispatcher.start_soon(live, await self._lifecycle.up(live, claim=live.attached))
            # Also for those who were denied a slot that this turn, or one that failed, had reserved.
            self._dispatcher.pump(live)

    async def _compare(self, live: LiveMachine, boot_id: UUID | None) -> None:
        machine = live.machine
        same = boot_id is not None and boot_id == machine.boot_id
        match machine.phase:
            case Phase.DESTROYING:
                self._lifecycle.send_destroy(machine)
            case Phase.STARTING if not same:
                self._lifecycle.send_start(machine)
            case Phase.RUNNING if same:
                self._lifecycle.send_sizes(machine)
            case Phase.RUNNING:
                await self._lifecycle.down(live, "it no longer ran when its node came back", died=True)
            case Phase.STOPPING if same:
                self._lifecycle.send_stop(machine)
            case Phase.STOPPING:
                await self._lifecycle.down(live, "", died=False)
            case Phase.ACCEPTED | Phase.PLACEMENT_PENDING:
                await self._lifecycle.start(live)
            case Phase.SLEEPING | Phase.FAILED:
                if boot_id is not None:
                    self._lifecycle.send_stop(machine, boot_id=boot_id, grace_ms=0)
                if _sleeps_in(live):
                    await self._lifecycle.start(live)
                elif machine.phase is Phase.FAILED and live.open_executions:  # a server died before it told them
                    code, _, why = (machine.last_error or "").partition(": ")
                    await self._lifecycle.start_failed(live, code, why, retryable=machine.retryable)

    async def _attached(
        self,
        live: LiveMachine,
        message: wire.Attached,
        known: set[str],
        connection: int,
        claimed: Mapping[str, Execution],
    ) -> None:
        if connection != self._connection:
            return
        reached(CrashPoint.ATTACH_RECEIVED)
        machine = live.machine
        boot_id = UUID(bytes=message.boot_id)
        if machine.phase in (Phase.STARTING, Phase.RUNNING):
            if boot_id != machine.boot_id:
                return  # replaced by the start of the present boot
            await self._lifecycle.up(live, claim=True)
            if connection == self._connection:
                live.attached = True
                self._dispatcher.resume(live, known - live.channels.keys(), claimed)
                self._channels.ready(live)
        elif machine.phase is Phase.STOPPING and boot_id == machine.boot_id:
            self._lifecycle.send_stop(machine)
        elif machine.phase in (Phase.STOPPING, Phase.SLEEPING, Phase.FAILED):
            self._lifecycle.send_stop(machine, boot_id=boot_id, grace_ms=0)

    async def _failed(self, live: LiveMachine, message: wire.MachineFailed) -> None:
        machine = live.machine
        if UUID(bytes=message.boot_id) != machine.boot_id:
            return
        if machine.phase in (Phase.STARTING, Phase.FAILED):  # FAILED: the turn before this one got half-way
            words, fields = "machine %s could not be started: %s: %s", {"machine_id": machine.id}
            log.warning(words, machine.id, message.code, message.message, extra=fields)
            await self._lifecycle.start_failed(live, message.code, message.message, retryable=message.retryable)
        elif machine.phase is Phase.STOPPING:
            await self._lifecycle.down(live, message.message, died=False)

    async def _ended(self, live: LiveMachine, message: wire.MachineEnded) -> None:
        machine = live.machine
        if UUID(bytes=message.boot_id) != machine.boot_id:
            return
        reached(CrashPoint.MACHINE_END_RECEIVED)
        live.attached = False
        self._feeder.restart(live)
        await self._runner.settled(live)
        if machine.phase is Phase.STOPPING:
            await self._lifecycle.down(live, message.reason, died=False)
        elif _sleeps_in(live):  # the turn before this one got half-way
            await self._lifecycle.start(live)
        elif machine.phase in (Phase.STARTING, Phase.FAILED):
            # Not `down`, which would start it again for those who wait: it might die again for ever.
            await self._lifecycle.start_failed(live, "GUEST_DIED", message.reason, retryable=True)
        elif machine.phase is Phase.RUNNING:
            log.warning("machine %s died: %s", machine.id, message.reason, extra={"machine_id": machine.id})
            await self._lifecycle.down(live, message.reason, died=True)

    async def _destroyed(self, live: LiveMachine) -> None:
        reached(CrashPoint.DESTROYED_RECEIVED)
        self._feeder.restart(live)
        await self._runner.settled(live)
        if live.machine.phase is Phase.DESTROYING:
            await self._lifecycle.gone(live)

    async def _resized(self, live: LiveMachine, message: wire.MachineResized) -> None:
        await self._lifecycle.resized(live, message.request, message.code, message.message)

    # The mailboxes.

    def _post(self, live: LiveMachine, step: Step) -> None:
        mailbox = self._mailboxes.get(live.machine.id)
        if mailbox is None:
            mailbox = self._mailboxes[live.machine.id] = deque()
            self._group.create_task(self._work_off(live, mailbox))
        mailbox.append(step)

    async def _work_off(self, live: LiveMachine, mailbox: deque[Step]) -> None:
        while mailbox:
            step = mailbox[0]

            async def turn(step: Step = step) -> None:
                async with live.lock:
                    await step(live)

            machine_id = live.machine.id
            await attempt(f"machine {machine_id}", turn, fields={"machine_id": machine_id})
            mailbox.popleft()
        del self._mailboxes[live.machine.id]


def _sleeps_in(live: LiveMachine) -> bool:
    """Whether it sleeps although it is wanted: what should have woken it was cut short."""
    machine = live.machine
    wanted = live.open_executions or machine.desired_state is DesiredState.RUNNING
    return machine.phase is Phase.SLEEPING and bool(wanted)
