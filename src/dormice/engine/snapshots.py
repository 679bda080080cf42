"""Snapshots as callers see them, and the service that has the node make and delete them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from dormice.crash_points import CrashPoint, reached
from dormice.domain.errors import Conflict, NotFound
from dormice.domain.limits import Limits
from dormice.domain.machine import GOING, Machine
from dormice.domain.snapshot import Snapshot, SnapshotEvent, SnapshotState
from dormice.engine.board import Board
from dormice.engine.clock import Clock, new_snapshot_id
from dormice.engine.feed import Feed
from dormice.engine.gateway import Gateway
from dormice.engine.idempotency import InFlight, reused
from dormice.engine.orders import Caller, Idempotency
from dormice.engine.tasks import Tasks
from dormice.protocol import node as wire
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed
from dormice.store.snapshots import NewSnapshot, SnapshotLostRace, SnapshotStore, TooManySnapshots

log = logging.getLogger(__name__)

COPY_WAIT_MS = 10_000
"""How long an answer waits for a copy at least: what the caller does to the machine afterwards should not be in it."""
_UNDER_WAY = (SnapshotState.CREATING, SnapshotState.DELETING)
Report = wire.SnapshotTaken | wire.SnapshotFailed | wire.SnapshotDeleted


class Snapshots:
    """The snapshots of every organization. Raises the errors of domain/errors.py and StoreUnavailable."""

    def __init__(
        self,
        *,
        store: SnapshotStore,
        board: Board,
        gateway: Gateway,
        feed: Feed,
        in_flight: InFlight,
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._store = store
        self._board = board
        self._gateway = gateway
        self._feed = feed
        self._in_flight = in_flight
        self._tasks = tasks
        self._clock = clock
        self._limits = limits
        self._reports: deque[Report | None] = deque()
        """What the node has said, oldest first; None: it has just come."""
        self._reported = asyncio.Event()
        self._held: Counter[str] = Counter()
        """Snapshots from which machines are being recorded, and below those whose deletion is: none is both."""
        self._deleted: Counter[str] = Counter()

    async def create(
        self, caller: Caller, machine: Machine, name: str, idempotency: Idempotency | None, *, wait_ms: int = 0
    ) -> Snapshot:
        """Keep a copy of a machine's disk as it is now. Returns once it is ready or has failed, or after the longer of both waits."""
        claim = await self._in_flight.claim(caller, idempotency)
        snapshot = await self._tasks.finish(self._create(caller, machine, name, claim))
        return await self._wait(snapshot, max(wait_ms, COPY_WAIT_MS if self._gateway.connected else 0))

    async def _create(self, caller: Caller, machine: Machine, name: str, claim: IdempotencyClaim | None) -> Snapshot:
        try:
            if machine.phase in GOING or machine.boot_id is None or not machine.copied:
                if (earlier := await self._in_flight.recall(claim)) is not None:
                    return await self.get(caller, earlier)
                raise Conflict(
                    f"the machine is {machine.phase.value} and has no disk to copy",
                    retryable=machine.phase not in GOING,
                    details={"current_observed_state": machine.phase.value},
                )
            made = await self._store.create(self._new(machine, name), claim)
        finally:
            self._in_flight.settle(claim)
        match made:
            case Snapshot():
                reached(CrashPoint.SNAPSHOT_COMMITTED)
                self._ask(made)
                return made
            case Replayed(resource_id=snapshot_id):
                return await self.get(caller, snapshot_id)
            case KeyReused():
                raise reused(made)
            case TooManySnapshots(limit=limit, most=most):
                words = f"snapshot quota exceeded: {most} ({limit}); delete one first"
                raise Conflict(words, code="QUOTA_EXCEEDED")

    def _new(self, machine: Machine, name: str) -> NewSnapshot:
        return NewSnapshot(
            id=new_snapshot_id(self._clock),
            organization_id=machine.organization_id,
            machine_id=machine.id,
            name=name,
            storage_gib=machine.storage_gib,
            image=machine.image,
            now=self._clock.now(),
            most_of_machine=self._limits.snapshots_per_machine,
            most_of_organization=self._limits.snapshots_per_organization,
        )

    async def get(self, caller: Caller, snapshot_id: str, *, wait_ms: int = 0) -> Snapshot:
        """Return a snapshot; with wait_ms, once it is made or has failed. Raises NotFound."""
        snapshot = await self._store.get(caller.organization_id, snapshot_id)
        if snapshot is None:
            raise NotFound("no such snapshot")
        return await self._wait(snapshot, wait_ms)

    async def page(self, caller: Caller, machine_id: str | None, *, before: int | None, limit: int) -> list[Snapshot]:
        """Return snapshots newest first, below the number `before`; of one machine, also a destroyed one, or of all."""
        return await self._store.page(caller.organization_id, machine_id, before=before, limit=limit)

    async def delete(self, caller: Caller, snapshot_id: str, *, wait_ms: int = 0) -> Snapshot:
        """Delete a snapshot. Raises Conflict while a machine is being made from it."""
        snapshot = await self.get(caller, snapshot_id)
        return await self._wait(await self._tasks.finish(self._delete(snapshot)), wait_ms)

    async def _delete(self, snapshot: Snapshot) -> Snapshot:
        if self._held[snapshot.id] or self._board.copies_of(snapshot.id):
            raise Conflict("a machine is being made from the snapshot: wait until it runs", retryable=True)
        with _counted(self._deleted, snapshot.id):
            moved = await self._store.advance(snapshot.id, SnapshotEvent.DELETE)
        if isinstance(moved, SnapshotLostRace):
            if moved.current is None:
                raise NotFound("no such snapshot")
            return moved.current
        reached(CrashPoint.SNAPSHOT_DELETE_COMMITTED)
        self._ask(moved)
        return moved

    @contextmanager
    def held(self, snapshot_id: str) -> Iterator[None]:
        """In this block the snapshot is not deleted: a machine that is to be made from it is being recorded."""
        with _counted(self._held, snapshot_id):
            yield

    async def ready(self, caller: Caller, snapshot_id: str) -> Snapshot:
        """Return a snapshot that a machine can be made from. Raises NotFound, Conflict."""
        going = self._deleted[snapshot_id] > 0  # and maybe no longer so once it is read, as it was before
        snapshot = await self.get(caller, snapshot_id)
        state = SnapshotState.DELETING if going else snapshot.state
        if state is not SnapshotState.READY:
            raise Conflict(
                f"the snapshot is {state.value}",
                retryable=state is SnapshotState.CREATING,
                details={"current_observed_state": state.value},
            )
        return snapshot

    async def _wait(self, snapshot: Snapshot, wait_ms: int) -> Snapshot:
        return await self._feed.until(
            snapshot.id,
            snapshot,
            wait_ms,
            clock=self._clock,
            reread=self._reread,
            enough=lambda one: one.state not in _UNDER_WAY,
        )

    async def _reread(self, snapshot: Snapshot) -> Snapshot:
        newer = await self._store.get(snapshot.organization_id, snapshot.id)
        return newer if newer is not None else _gone(snapshot)

    # The node

    def node_joined(self) -> None:
        """Have everything that is under way asked for again."""
        self._reports.append(None)
        self._reported.set()

    def node_said(self, report: Report) -> None:
        """Take a report of the node."""
        self._reports.append(report)
        self._reported.set()

    async def turn(self) -> None:
        """Work off the reports."""
        while self._reports:
            report = self._reports[0]
            if report is None:
                for snapshot in await self._store.unsettled():
                    self._ask(snapshot)
            else:
                await self._settle(report)
            self._reports.popleft()
        self._reported.clear()
        await self._reported.wait()

    async def _settle(self, report: Report) -> None:
        match report:
            case wire.SnapshotTaken(snapshot_id, size):
                moved = await self._store.advance(snapshot_id, SnapshotEvent.TAKEN, size=size)
            case wire.SnapshotFailed(snapshot_id, code, message):
                moved = await self._store.advance(snapshot_id, SnapshotEvent.FAILED, error=f"{code}: {message}")
            case wire.SnapshotDeleted(snapshot_id):
                moved = await self._store.advance(snapshot_id, SnapshotEvent.DELETED)
        reached(CrashPoint.SNAPSHOT_SETTLED)
        if isinstance(moved, SnapshotLostRace):
            if isinstance(report, wire.SnapshotTaken) and not _wanted(moved.current):
                self._gateway.send(wire.DeleteSnapshot(snapshot_id))  # it was deleted while it was being made
            return
        self._feed.notify(snapshot_id)

    def _ask(self, snapshot: Snapshot) -> None:
        if snapshot.state is SnapshotState.CREATING:
            self._gateway.send(wire.TakeSnapshot(snapshot.machine_id, snapshot.id, snapshot.organization_id))
        elif snapshot.state is SnapshotState.DELETING:
            self._gateway.send(wire.DeleteSnapshot(snapshot.id))


@contextmanager
def _counted(counter: Counter[str], snapshot_id: str) -> Iterator[None]:
    counter[snapshot_id] += 1
    try:
        yield
    finally:
        counter[snapshot_id] -= 1
        if not counter[snapshot_id]:
            del counter[snapshot_id]


def _wanted(snapshot: Snapshot | None) -> bool:
    return snapshot is not None and snapshot.state in (SnapshotState.CREATING, SnapshotState.READY)


def _gone(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, state=SnapshotState.DELETED)
