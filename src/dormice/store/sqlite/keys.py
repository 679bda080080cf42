"""Organizations and API keys."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import uuid4

import apsw

from dormice.domain.execution import Micros
from dormice.store.interface import Key, KeyRefusal
from dormice.store.sqlite import statements
from dormice.store.sqlite.reader import Reader
from dormice.store.sqlite.writer import Writer

_SQL = statements.load("keys.sql")
_SHORT_USES = 8


class SqliteKeys:
    """KeyStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def ensure_organization(self, name: str, now: Micros) -> str:
        return await self._writer.run(partial(_ensure_organization, name=name, now=now))

    async def create(self, key: Key, secret_hash: bytes) -> Key:
        return await self._writer.run(partial(_create, key=key, secret_hash=secret_hash))

    async def find(self, secret_hash: bytes) -> Key | None:
        return self._reader.point(partial(_find, secret_hash=secret_hash))

    async def of(self, organization_id: str | None) -> list[Key]:
        rows = await self._reader.scan(lambda db: db.execute(_SQL["of"], (organization_id,)).fetchall())
        return [_key(row) for row in rows]

    async def create_for_project(self, key: Key, secret_hash: bytes, *, most: int) -> Key | KeyRefusal:
        return await self._writer.run(partial(_create_for_project, key=key, secret_hash=secret_hash, most=most))

    async def get(self, key_id: str) -> Key | None:
        row = self._reader.point(lambda db: db.execute(_SQL["get"], (None, key_id)).get)
        return None if row is None else _key(row)

    async def of_project(self, project_id: str) -> list[Key]:
        rows = await self._reader.scan(lambda db: db.execute(_SQL["of_project"], (project_id,)).fetchall())
        return sorted(map(_key, rows), key=lambda key: key.created_at)

    async def revoke(self, organization_id: str | None, key_id: str, now: Micros) -> Key | None:
        return await self._writer.run(partial(_revoke, organization_id=organization_id, key_id=key_id, now=now))

    async def use(self, uses: Mapping[str, Micros]) -> None:
        await self._writer.run(partial(_use, uses=uses), short=len(uses) <= _SHORT_USES)


def _key(row: tuple[Any, ...]) -> Key:
    return Key(
        id=row[0],
        organization_id=row[1],
        organization=row[2],
        name=row[3],
        admin=bool(row[4]),
        prefix=row[5],
        created_at=row[6],
        revoked_at=row[7],
        project_id=row[8],
        last_four=row[9] or "",
        used_at=row[10],
    )


def _ensure_organization(db: apsw.Connection, name: str, now: Micros) -> str:
    found = db.execute(_SQL["organization"], (name,)).get
    if found is not None:
        return str(found)
    organization_id = str(uuid4())
    db.execute(_SQL["insert_organization"], (organization_id, name, now))
    return organization_id


def _create(db: apsw.Connection, key: Key, secret_hash: bytes) -> Key:
    values = (
        key.id,
        key.organization_id,
        key.name,
        int(key.admin),
        key.prefix,
        secret_hash,
        key.created_at,
        key.revoked_at,
    )
    db.execute(_SQL["insert"], values)
    created = _find(db, secret_hash)
    assert created is not None  # noqa: S101 - inserted just now, or there before
    return created


def _create_for_project(db: apsw.Connection, key: Key, secret_hash: bytes, most: int) -> Key | KeyRefusal:
    names = [name for (name,) in db.execute(_SQL["names_of_project"], (key.project_id,)).fetchall()]
    if key.name in names:
        return KeyRefusal.NAME_TAKEN
    if len(names) >= most:
        return KeyRefusal.TOO_MANY
    created = _create(db, key, secret_hash)
    db.execute(_SQL["insert_of_project"], (created.id, key.project_id, key.name, key.last_four))
    return key


def _find(db: apsw.Connection, secret_hash: bytes) -> Key | None:
    row = db.execute(_SQL["find"], (secret_hash,)).get
    return None if row is None else _key(row)


def _revoke(db: apsw.Connection, organization_id: str | None, key_id: str, now: Micros) -> Key | None:
    db.execute(_SQL["revoke"], (organization_id, key_id, now))
    row = db.execute(_SQL["get"], (organization_id, key_id)).get
    if row is None:
        return None
    db.execute(_SQL["delete_of_project"], (key_id,))
    return _key(row)


def _use(db: apsw.Connection, uses: Mapping[str, Micros]) -> None:
    db.executemany(_SQL["use"], uses.items())
