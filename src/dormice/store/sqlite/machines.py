"""Machines."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import apsw
import msgspec

from dormice.domain.egress import PUBLIC, Egress
from dormice.domain.execution import Micros
from dormice.domain.machine import DesiredState, Machine, MachineEvent, Phase, ResizeState
from dormice.store.interface import IdempotencyClaim, KeyReused, LostRace, MachineChange, NewMachine, Replayed
from dormice.store.sqlite import idempotency, statements, usage, webhook_events
from dormice.store.sqlite.reader import SHORT_ROWS, Reader
from dormice.store.sqlite.writer import Writer

_SQL = statements.load("machines.sql")


class SqliteMachines:
    """MachineStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def create(self, new: NewMachine, claim: IdempotencyClaim | None) -> Machine | Replayed | KeyReused:
        return await self._writer.run(partial(_create, new=new, claim=claim), short=True)

    async def get(self, organization_id: str, machine_id: str) -> Machine | None:
        row = self._reader.point(lambda db: db.execute(_SQL["get"], (organization_id, machine_id)).get)
        return None if row is None else _machine(row)

    async def page(
        self, organization_id: str, *, before: int | None, limit: int, destroyed: bool = False
    ) -> list[Machine]:
        query = _SQL["page_with_destroyed" if destroyed else "page"]
        values = (organization_id, sys.maxsize if before is None else before, limit)
        rows = await self._reader.read(lambda db: db.execute(query, values).fetchall(), short=limit <= SHORT_ROWS)
        return [_machine(row) for row in rows]

    async def live(self) -> list[Machine]:
        rows = await self._reader.scan(lambda db: db.execute(_SQL["live"]).fetchall())
        return [_machine(row) for row in rows]

    async def advance(
        self,
        machine_id: str,
        revision: int,
        event: MachineEvent | None,
        change: MachineChange,
        now: Micros,
        claim: IdempotencyClaim | None = None,
    ) -> Machine | LostRace | Replayed | KeyReused:
        operation = partial(
            _advance, machine_id=machine_id, revision=revision, event=event, change=change, now=now, claim=claim
        )
        return await self._writer.run(operation, short=True)

    async def note_memory(self, machine_id: str, revision: int, change: MachineChange) -> Machine | LostRace:
        operation = partial(_note_memory, machine_id=machine_id, revision=revision, change=change)
        return await self._writer.run(operation, short=True)


def _machine(row: tuple[Any, ...]) -> Machine:
    return Machine(
        number=row[0],
        id=row[1],
        organization_id=row[2],
        vcpu=row[3],
        memory_mib=row[4],
        storage_gib=row[5],
        image=row[6],
        autosleep_seconds=row[7],
        desired_state=DesiredState(row[8]),
        phase=Phase(row[9]),
        reason=row[10],
        retryable=bool(row[11]),
        revision=row[12],
        created_at=row[13],
        last_transition_at=row[14],
        last_progress_at=row[15],
        last_activity_at=row[16],
        boot_id=row[17] and UUID(bytes=row[17]),
        last_error=row[18],
        autoresizing=bool(row[19]),
        unapplied_from_mib=row[20],
        enlarging=bool(row[21]),
        autoresized_at=row[22],
        resize_state=ResizeState(row[23] or ResizeState.STABLE),
        egress=PUBLIC if row[24] is None else Egress(msgspec.json.decode(row[24], type=tuple[str, ...])),
        origin=row[25],
        copied=row[25] is None or bool(row[26]),
    )


def _create(db: apsw.Connection, new: NewMachine, claim: IdempotencyClaim | None) -> Machine | Replayed | KeyReused:
    if (answer := idempotency.find(db, claim)) is not None:
        return answer
    machine = Machine(
        number=0,
        id=new.id,
        organization_id=new.organization_id,
        vcpu=new.vcpu,
        memory_mib=new.memory_mib,
        storage_gib=new.storage_gib,
        image=new.image,
        autosleep_seconds=new.autosleep_seconds,
        desired_state=DesiredState.RUNNING,
        phase=Phase.ACCEPTED,
        reason="Accepted",
        retryable=False,
        revision=1,
        created_at=new.now,
        last_transition_at=new.now,
        last_progress_at=new.now,
        last_activity_at=new.now,
        egress=new.egress,
        origin=new.origin,
        copied=new.origin is None,
    )
    values = (
        machine.id,
        machine.organization_id,
        machine.vcpu,
        machine.memory_mib,
        machine.storage_gib,
        machine.image,
        machine.autosleep_seconds,
        machine.desired_state.value,
        machine.phase.value,
        machine.reason,
        int(machine.retryable),
        machine.revision,
        machine.created_at,
        machine.last_transition_at,
        machine.last_progress_at,
        machine.last_activity_at,
    )
    machine = replace(machine, number=db.execute(_SQL["insert"], values).get)
    _save_egress(db, machine, PUBLIC)
    if new.origin is not None:
        db.execute(_SQL["set_origin"], (machine.number, new.origin, 0))
    usage.storage_changed(db, machine, new.now)
    idempotency.remember(db, claim, new.id)
    return machine


def _advance(
    db: apsw.Connection,
    *,
    machine_id: str,
    revision: int,
    event: MachineEvent | None,
    change: MachineChange,
    now: Micros,
    claim: IdempotencyClaim | None,
) -> Machine | LostRace | Replayed | KeyReused:
    if (answer := idempotency.find(db, claim)) is not None:
        return answer
    row = db.execute(_SQL["load"], (machine_id,)).get
    before = None if row is None else _machine(row)
    if before is None or before.revision != revision:
        return LostRace(before)
    phase = before.phase if event is None else before.on(event)
    after = _changed(before, phase, change, now)
    _save(db, after)
    _save_egress(db, after, before.egress)
    if after.copied and not before.copied:
        db.execute(_SQL["set_origin"], (after.number, after.origin, 1))
    if _memory(after) != _memory(before):
        db.execute(_SQL["save_memory"], (after.number, *_memory(after)))
    if after.storage_gib != before.storage_gib or phase is Phase.DESTROYED:
        usage.storage_changed(db, after, now)
    if after.phase is not before.phase:
        webhook_events.machine_moved(db, after)
    idempotency.remember(db, claim, machine_id)
    return after


def _note_memory(db: apsw.Connection, machine_id: str, revision: int, change: MachineChange) -> Machine | LostRace:
    row = db.execute(_SQL["load"], (machine_id,)).get
    before = None if row is None else _machine(row)
    if before is None or before.revision != revision:
        return LostRace(before)
    after = _with_memory(before, change)
    db.execute(_SQL["save_memory"], (after.number, *_memory(after)))
    return after


def _with_memory(before: Machine, change: MachineChange) -> Machine:
    unapplied, state = change.unapplied_from_mib, change.resize_state
    return replace(
        before,
        autoresizing=before.autoresizing if change.autoresizing is None else change.autoresizing,
        unapplied_from_mib=(before.unapplied_from_mib if unapplied is None else unapplied) or None,
        enlarging=before.enlarging if change.enlarging is None else change.enlarging,
        autoresized_at=before.autoresized_at if change.autoresized_at is None else change.autoresized_at,
        resize_state=before.resize_state if state is None else state,
    )


def _changed(before: Machine, phase: Phase, change: MachineChange, now: Micros) -> Machine:
    def new(value: Any, old: Any) -> Any:
        return old if value is None else value

    return replace(
        _with_memory(before, change),
        vcpu=new(change.vcpu, before.vcpu),
        memory_mib=new(change.memory_mib, before.memory_mib),
        storage_gib=new(change.storage_gib, before.storage_gib),
        autosleep_seconds=new(change.autosleep_seconds, before.autosleep_seconds),
        desired_state=new(change.desired_state, before.desired_state),
        phase=phase,
        reason=new(change.reason, before.reason),
        retryable=new(change.retryable, before.retryable),
        revision=before.revision + 1,
        last_transition_at=now if phase is not before.phase else before.last_transition_at,
        last_progress_at=now,
        last_activity_at=new(change.last_activity_at, before.last_activity_at),
        boot_id=new(change.boot_id, before.boot_id),
        last_error=new(change.last_error, before.last_error) or None,
        egress=new(change.egress, before.egress),
        copied=before.copied or change.copied,
    )


def _save_egress(db: apsw.Connection, machine: Machine, before: Egress) -> None:
    if machine.egress == before:
        return
    if machine.egress.allow is None:
        db.execute(_SQL["drop_egress"], (machine.number,))
    else:
        db.execute(_SQL["set_egress"], (machine.number, msgspec.json.encode(machine.egress.allow).decode()))


def _memory(machine: Machine) -> tuple[int, int | None, int, int | None, str]:
    return (
        int(machine.autoresizing),
        machine.unapplied_from_mib,
        int(machine.enlarging),
        machine.autoresized_at,
        machine.resize_state.value,
    )


def _save(db: apsw.Connection, machine: Machine) -> None:
    values = (
        machine.vcpu,
        machine.memory_mib,
        machine.storage_gib,
        machine.autosleep_seconds,
        machine.desired_state.value,
        machine.phase.value,
        machine.reason,
        int(machine.retryable),
        machine.revision,
        machine.last_transition_at,
        machine.last_progress_at,
        machine.last_activity_at,
        machine.boot_id and machine.boot_id.bytes,
        machine.last_error,
        machine.number,
    )
    db.execute(_SQL["save"], values)
