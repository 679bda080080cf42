"""Previews."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import apsw

from dormice.domain.execution import ErrorCode, Micros
from dormice.domain.preview import TERMINAL, Preview, PreviewEvent, PreviewProtocol, PreviewState, Visibility
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed
from dormice.store.previews import NewPreview, PreviewMoved, TooManyPreviews
from dormice.store.sqlite import idempotency, statements
from dormice.store.sqlite.reader import SHORT_ROWS, Reader
from dormice.store.sqlite.writer import Writer

_SQL = statements.load("previews.sql")


class SqlitePreviews:
    """PreviewStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def create(
        self, new: NewPreview, claim: IdempotencyClaim | None, *, most: int
    ) -> Preview | TooManyPreviews | Replayed | KeyReused:
        return await self._writer.run(partial(_create, new=new, claim=claim, most=most), short=True)

    async def find(self, preview_id: str) -> Preview | None:
        row = self._reader.point(lambda db: db.execute(_SQL["find"], (preview_id,)).get)
        return None if row is None else _preview(row)

    async def get(self, organization_id: str, machine_id: str, preview_id: str) -> Preview | None:
        values = (organization_id, machine_id, preview_id)
        row = self._reader.point(lambda db: db.execute(_SQL["get"], values).get)
        return None if row is None else _preview(row)

    async def page(self, organization_id: str, machine_id: str, *, before: int | None, limit: int) -> list[Preview]:
        values = (organization_id, machine_id, sys.maxsize if before is None else before, limit)
        rows = await self._reader.read(
            lambda db: db.execute(_SQL["page"], values).fetchall(), short=limit <= SHORT_ROWS
        )
        return [_preview(row) for row in rows]

    async def waking(self) -> list[Preview]:
        rows = await self._reader.scan(lambda db: db.execute(_SQL["waking"]).fetchall())
        return [_preview(row) for row in rows]

    async def due(self, now: Micros, limit: int) -> list[Preview]:
        rows = await self._reader.scan(
            lambda db: (
                db.execute(_SQL["due"], (now, limit)).fetchall() or db.execute(_SQL["orphans"], (now, limit)).fetchall()
            )
        )
        return [_preview(row) for row in rows]

    async def open(self, now: Micros) -> Mapping[PreviewState, int]:
        return await self._reader.scan(
            lambda db: {
                state: db.execute(_SQL["in_state"], (now, state.value)).get
                for state in PreviewState
                if state not in TERMINAL
            }
        )

    async def advance(
        self,
        before: Preview,
        event: PreviewEvent,
        now: Micros,
        *,
        error_code: ErrorCode | None = None,
        error_message: str | None = None,
    ) -> Preview | PreviewMoved:
        state = before.on(event)
        after = replace(
            before,
            state=state,
            ready_at=now if state is PreviewState.READY else before.ready_at,
            ended_at=now if state in TERMINAL else None,
            error_code=error_code,
            error_message=error_message,
        )
        return await self._writer.run(partial(_save, before=before, after=after), short=True)


def _preview(row: tuple[Any, ...]) -> Preview:
    return Preview(
        number=row[0],
        id=row[1],
        organization_id=row[2],
        machine_id=row[3],
        created_by=row[4],
        port=row[5],
        protocol=PreviewProtocol(row[6]),
        visibility=Visibility(row[7]),
        state=PreviewState(row[8]),
        created_at=row[9],
        expires_at=row[10],
        ready_at=row[11],
        ended_at=row[12],
        error_code=row[13] and ErrorCode(row[13]),
        error_message=row[14],
    )


def _create(
    db: apsw.Connection, new: NewPreview, claim: IdempotencyClaim | None, most: int
) -> Preview | TooManyPreviews | Replayed | KeyReused:
    if (answer := idempotency.find(db, claim)) is not None:
        return answer
    count = db.execute(_SQL["open"], (new.machine_id,)).get
    if count >= most:
        return TooManyPreviews(count)
    preview = Preview(
        number=0,
        id=new.id,
        organization_id=new.organization_id,
        machine_id=new.machine_id,
        created_by=new.created_by,
        port=new.port,
        protocol=new.protocol,
        visibility=new.visibility,
        state=PreviewState.READY if new.awake else PreviewState.WAKE_IN_PROGRESS,
        created_at=new.now,
        expires_at=new.expires_at,
        ready_at=new.now if new.awake else None,
    )
    values = (
        preview.id,
        preview.organization_id,
        preview.machine_id,
        preview.created_by,
        preview.port,
        preview.protocol.value,
        preview.visibility.value,
        preview.state.value,
        preview.created_at,
        preview.expires_at,
        preview.ready_at,
    )
    number = db.execute(_SQL["insert"], values).get
    idempotency.remember(db, claim, new.id)
    return replace(preview, number=number)


def _save(db: apsw.Connection, before: Preview, after: Preview) -> Preview | PreviewMoved:
    values = (
        after.state.value,
        after.ready_at,
        after.ended_at,
        after.error_code and after.error_code.value,
        after.error_message,
        after.number,
        before.state.value,
    )
    db.execute(_SQL["save"], values)
    if db.changes():
        return after
    row = db.execute(_SQL["find"], (before.id,)).get
    return PreviewMoved(None if row is None else _preview(row))
