"""Snapshots."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import Any

import apsw

from dormice.domain.snapshot import Snapshot, SnapshotEvent, SnapshotState
from dormice.domain.transitions import IllegalTransition
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed
from dormice.store.snapshots import NewSnapshot, SnapshotLostRace, TooManySnapshots
from dormice.store.sqlite import idempotency, statements
from dormice.store.sqlite.reader import SHORT_ROWS, Reader
from dormice.store.sqlite.writer import Writer

_SQL = statements.load("snapshots.sql")


class SqliteSnapshots:
    """SnapshotStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def create(
        self, new: NewSnapshot, claim: IdempotencyClaim | None
    ) -> Snapshot | Replayed | KeyReused | TooManySnapshots:
        return await self._writer.run(partial(_create, new=new, claim=claim), short=True)

    async def get(self, organization_id: str, snapshot_id: str) -> Snapshot | None:
        row = self._reader.point(lambda db: db.execute(_SQL["get"], (organization_id, snapshot_id)).get)
        return None if row is None else _snapshot(row)

    async def page(
        self, organization_id: str, machine_id: str | None, *, before: int | None, limit: int
    ) -> list[Snapshot]:
        owner = (organization_id,) if machine_id is None else (organization_id, machine_id)
        values = (*owner, sys.maxsize if before is None else before, limit)
        query = _SQL["page" if machine_id is None else "page_of_machine"]
        rows = await self._reader.read(lambda db: db.execute(query, values).fetchall(), short=limit <= SHORT_ROWS)
        return [_snapshot(row) for row in rows]

    async def unsettled(self) -> list[Snapshot]:
        rows = await self._reader.scan(lambda db: db.execute(_SQL["unsettled"]).fetchall())
        return [_snapshot(row) for row in rows]

    async def advance(
        self, snapshot_id: str, event: SnapshotEvent, *, size: int | None = None, error: str | None = None
    ) -> Snapshot | SnapshotLostRace:
        operation = partial(_advance, snapshot_id=snapshot_id, event=event, size=size, error=error)
        return await self._writer.run(operation, short=True)


def _snapshot(row: tuple[Any, ...]) -> Snapshot:
    return Snapshot(
        number=row[0],
        id=row[1],
        organization_id=row[2],
        machine_id=row[3],
        name=row[4],
        state=SnapshotState(row[5]),
        storage_gib=row[6],
        image=row[7],
        created_at=row[8],
        bytes=row[9],
        error=row[10],
    )


def _create(
    db: apsw.Connection, new: NewSnapshot, claim: IdempotencyClaim | None
) -> Snapshot | Replayed | KeyReused | TooManySnapshots:
    if (answer := idempotency.find(db, claim)) is not None:
        return answer
    owner = new.organization_id
    if db.execute(_SQL["count_of_machine"], (owner, new.machine_id)).get >= new.most_of_machine:
        return TooManySnapshots("snapshots_per_machine", new.most_of_machine)
    if db.execute(_SQL["count"], (owner,)).get >= new.most_of_organization:
        return TooManySnapshots("snapshots_per_organization", new.most_of_organization)
    snapshot = Snapshot(
        number=0,
        id=new.id,
        organization_id=owner,
        machine_id=new.machine_id,
        name=new.name,
        state=SnapshotState.CREATING,
        storage_gib=new.storage_gib,
        image=new.image,
        created_at=new.now,
    )
    values = (new.id, owner, new.machine_id, new.name, snapshot.state.value, new.storage_gib, new.image, new.now)
    number = db.execute(_SQL["insert"], values).get
    idempotency.remember(db, claim, new.id)
    return replace(snapshot, number=number)


def _advance(
    db: apsw.Connection, *, snapshot_id: str, event: SnapshotEvent, size: int | None, error: str | None
) -> Snapshot | SnapshotLostRace:
    row = db.execute(_SQL["load"], (snapshot_id,)).get
    if row is None:
        return SnapshotLostRace(None)
    before = _snapshot(row)
    try:
        state = before.on(event)
    except IllegalTransition:
        return SnapshotLostRace(before)
    after = replace(before, state=state, bytes=before.bytes if size is None else size, error=error or before.error)
    if state is SnapshotState.DELETED:
        db.execute(_SQL["delete"], (after.number,))
    else:
        db.execute(_SQL["save"], (state.value, after.bytes, after.error, after.number))
    return after
