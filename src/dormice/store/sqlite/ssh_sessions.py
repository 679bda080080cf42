"""SSH sessions."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import apsw

from dormice.domain.execution import Micros
from dormice.domain.ssh import TRANSITIONS, SshEvent, SshSession, SshState
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed
from dormice.store.sqlite import idempotency, statements
from dormice.store.sqlite.reader import SHORT_ROWS, Reader
from dormice.store.sqlite.writer import Writer
from dormice.store.ssh import NewSshSession, TooManySshSessions

_SQL = statements.load("ssh_sessions.sql")


class SqliteSshSessions:
    """SshSessionStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def create(
        self, new: NewSshSession, claim: IdempotencyClaim | None, *, most: int
    ) -> SshSession | Replayed | KeyReused | TooManySshSessions:
        return await self._writer.run(partial(_create, new=new, claim=claim, most=most), short=True)

    async def get(self, organization_id: str, machine_id: str, session_id: str) -> SshSession | None:
        values = (organization_id, machine_id, session_id)
        return _session(self._reader.point(lambda db: db.execute(_SQL["get"], values).get))

    async def find(self, session_id: str) -> SshSession | None:
        return _session(self._reader.point(lambda db: db.execute(_SQL["find"], (session_id,)).get))

    async def page(self, organization_id: str, machine_id: str, *, before: int | None, limit: int) -> list[SshSession]:
        values = (organization_id, machine_id, sys.maxsize if before is None else before, limit)
        rows = await self._reader.read(
            lambda db: db.execute(_SQL["page"], values).fetchall(), short=limit <= SHORT_ROWS
        )
        return [found for row in rows if (found := _session(row)) is not None]

    async def open(self, now: Micros) -> Mapping[SshState, int]:
        return await self._reader.scan(
            lambda db: {
                state: db.execute(_SQL["in_state"], (now, state.value)).get
                for state, follows in TRANSITIONS.items()
                if follows
            }
        )

    async def advance(
        self, session: SshSession, event: SshEvent, now: Micros, *, error_message: str | None = None
    ) -> SshSession | None:
        operation = partial(_advance, session=session, event=event, now=now, error_message=error_message)
        return await self._writer.run(operation, short=True)


def _create(
    db: apsw.Connection, new: NewSshSession, claim: IdempotencyClaim | None, most: int
) -> SshSession | Replayed | KeyReused | TooManySshSessions:
    if (answer := idempotency.find(db, claim)) is not None:
        return answer
    machine = db.execute(_SQL["machine"], (new.organization_id, new.machine_id)).get
    if machine is None:
        raise LookupError(f"{new.organization_id} has no machine {new.machine_id}")
    if db.execute(_SQL["count"], (machine, new.now)).get >= most:
        return TooManySshSessions()
    state = SshState.READY if new.ready else SshState.WAKE_IN_PROGRESS
    ready_at = new.now if new.ready else None
    values = (new.id, machine, state.value, new.certificate, new.now, new.expires_at, ready_at)
    db.execute(_SQL["insert"], values)
    number = db.last_insert_rowid()
    db.execute(_SQL["insert_maker"], (number, new.created_by))
    idempotency.remember(db, claim, new.id)
    return SshSession(
        number=number,
        id=new.id,
        organization_id=new.organization_id,
        machine_id=new.machine_id,
        state=state,
        created_by=new.created_by,
        certificate=new.certificate,
        created_at=new.now,
        expires_at=new.expires_at,
        ready_at=ready_at,
    )


def _advance(
    db: apsw.Connection, session: SshSession, event: SshEvent, now: Micros, error_message: str | None
) -> SshSession | None:
    state = session.on(event)
    ready_at = now if state is SshState.READY else session.ready_at
    db.execute(_SQL["advance"], (session.id, session.state.value, state.value, ready_at, error_message))
    return _session(db.execute(_SQL["find"], (session.id,)).get)


def _session(row: Any) -> SshSession | None:
    if row is None:
        return None
    return SshSession(
        number=row[0],
        id=row[1],
        organization_id=row[2],
        machine_id=row[3],
        state=SshState(row[4]),
        certificate=row[5],
        created_at=row[6],
        expires_at=row[7],
        ready_at=row[8],
        error_message=row[9],
        created_by=row[10] or "",
    )
