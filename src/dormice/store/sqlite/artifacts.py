"""Artifacts: every method of the port, each one transaction."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import apsw
import msgspec

from dormice.domain.artifact import TRANSITIONS, Artifact, Collection, CollectionEvent, CollectionState
from dormice.domain.execution import Micros
from dormice.domain.transitions import follow
from dormice.store.interface import NewExecution
from dormice.store.sqlite import statements
from dormice.store.sqlite.reader import SHORT_ROWS, Reader
from dormice.store.sqlite.writer import Writer

_SQL = statements.load("artifacts.sql")
_patterns = msgspec.json.Decoder(tuple[str, ...])


class SqliteArtifacts:
    """ArtifactStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def known(self) -> set[str]:
        return await self._reader.scan(partial(_column, sql=_SQL["known"]))

    async def ids(self) -> set[str]:
        return await self._reader.scan(partial(_column, sql=_SQL["ids"]))

    async def kept_bytes(self, organization_id: str) -> int:
        found: list[tuple[Any, ...]] = await self._reader.scan(
            lambda db: db.execute(_SQL["kept_bytes"], (organization_id,)).fetchall()
        )
        return int(found[0][0])

    async def due(
        self,
        *,
        limit: int,
        executions: Sequence[str] = (),
        machines: Sequence[str] = (),
        organizations: Sequence[str] = (),
    ) -> list[Collection]:
        besides = [msgspec.json.encode(names).decode() for names in (executions, machines, organizations)]
        found = await self._reader.scan(lambda db: db.execute(_SQL["due"], (limit, *besides)).fetchall())
        return list(map(_collection, found))

    async def end(self, execution_id: str, event: CollectionEvent, artifacts: Sequence[Artifact], message: str) -> bool:
        return await self._writer.run(
            partial(_end, execution_id=execution_id, event=event, artifacts=artifacts, message=message)
        )

    async def collection(self, execution_id: str) -> tuple[Collection, list[Artifact]] | None:
        row = self._reader.point(lambda db: db.execute(_SQL["collection"], (execution_id,)).fetchone())
        if row is None:
            return None
        found = await self._reader.scan(lambda db: db.execute(_SQL["of_execution"], (execution_id,)).fetchall())
        return _collection(row), list(map(_artifact, found))

    async def get(self, organization_id: str, machine_id: str, artifact_id: str) -> Artifact | None:
        values = (organization_id, machine_id, artifact_id)
        row = self._reader.point(lambda db: db.execute(_SQL["get"], values).fetchone())
        return None if row is None else _artifact(row)

    async def find(self, artifact_id: str) -> Artifact | None:
        row = self._reader.point(lambda db: db.execute(_SQL["find"], (artifact_id,)).fetchone())
        return None if row is None else _artifact(row)

    async def page(self, organization_id: str, machine_id: str, *, before: int | None, limit: int) -> list[Artifact]:
        values = (organization_id, machine_id, sys.maxsize if before is None else before, limit)
        found = await self._reader.read(
            lambda db: db.execute(_SQL["page"], values).fetchall(), short=limit <= SHORT_ROWS
        )
        return list(map(_artifact, found))

    async def delete(self, artifact_id: str) -> None:
        await self._writer.run(lambda db: _run(db, "delete", artifact_id))

    async def expired(self, now: Micros, *, limit: int) -> list[str]:
        found = await self._reader.scan(lambda db: db.execute(_SQL["expired"], (now, limit)).fetchall())
        return [str(artifact_id) for (artifact_id,) in found]


def expect(db: apsw.Connection, new: NewExecution) -> None:
    """Record what is to be collected of a new execution."""
    patterns = msgspec.json.encode(new.artifacts)
    values = (new.id, new.organization_id, new.machine_id, new.cwd, patterns)
    db.execute(_SQL["insert_collection"], values)


def _end(
    db: apsw.Connection, execution_id: str, event: CollectionEvent, artifacts: Sequence[Artifact], message: str
) -> bool:
    before = CollectionState.PENDING
    after = follow(TRANSITIONS, before, event)
    if db.execute(_SQL["end"], (execution_id, before.value, after.value, message)).fetchone() is None:
        return False
    db.executemany(_SQL["insert"], map(_values, artifacts))
    return True


def _run(db: apsw.Connection, name: str, *values: Any) -> None:
    db.execute(_SQL[name], values)


def _column(db: apsw.Connection, sql: str) -> set[str]:
    return {str(value) for (value,) in db.execute(sql)}


def _collection(row: Sequence[Any]) -> Collection:
    execution_id, organization_id, machine_id, cwd, patterns, state, message, started = row
    return Collection(
        execution_id=execution_id,
        organization_id=organization_id,
        machine_id=machine_id,
        cwd=cwd,
        patterns=_patterns.decode(patterns),
        state=CollectionState(state),
        message=message,
        started=bool(started),
    )


def _artifact(row: Sequence[Any]) -> Artifact:
    number, artifact_id, execution_id, organization_id, machine_id, name, size, sha256, mime, created, expires = row
    return Artifact(
        number=number,
        id=artifact_id,
        execution_id=execution_id,
        organization_id=organization_id,
        machine_id=machine_id,
        name=name,
        size=size,
        sha256=sha256,
        mime_type=mime,
        created_at=created,
        expires_at=expires,
    )


def _values(artifact: Artifact) -> tuple[Any, ...]:
    return (
        artifact.id,
        artifact.execution_id,
        artifact.organization_id,
        artifact.machine_id,
        artifact.name,
        artifact.size,
        artifact.sha256,
        artifact.mime_type,
        artifact.created_at,
        artifact.expires_at,
    )
