"""Terminals: every method of the port, each one transaction."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import apsw

from dormice.domain.execution import Execution
from dormice.domain.terminal import Terminal
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed
from dormice.store.sealing import Sealer
from dormice.store.sqlite import executions, rows, statements
from dormice.store.sqlite.reader import SHORT_ROWS, Reader
from dormice.store.sqlite.writer import Writer
from dormice.store.terminals import NewTerminal

_SQL = statements.load("terminals.sql")


class SqliteTerminals:
    """TerminalStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader, sealer: Sealer) -> None:
        self._writer = writer
        self._reader = reader
        self._sealer = sealer

    async def create(self, new: NewTerminal, claim: IdempotencyClaim | None) -> Execution | Replayed | KeyReused:
        return await self._writer.run(partial(_create, sealer=self._sealer, new=new, claim=claim))

    async def get(self, organization_id: str, machine_id: str, terminal_id: str) -> Terminal | None:
        values = (organization_id, machine_id, terminal_id)
        row = self._reader.point(lambda db: db.execute(_SQL["get"], values).get)
        return None if row is None else _terminal(row)

    async def find(self, terminal_id: str) -> Terminal | None:
        row = self._reader.point(lambda db: db.execute(_SQL["find"], (terminal_id,)).get)
        return None if row is None else _terminal(row)

    async def page(self, organization_id: str, machine_id: str, *, before: int | None, limit: int) -> list[Terminal]:
        values = (organization_id, machine_id, sys.maxsize if before is None else before, limit)
        query = partial(_page, values=values)
        return await self._reader.read(query, short=limit <= SHORT_ROWS)

    async def of_execution(self, execution_id: str) -> Terminal | None:
        row = self._reader.point(lambda db: db.execute(_SQL["of_execution"], (execution_id,)).get)
        return None if row is None else _terminal(row)

    async def resize(self, terminal_id: str, width: int, height: int) -> None:
        await self._writer.run(lambda db: db.execute(_SQL["resize"], (terminal_id, width, height)), short=True)


def _terminal(row: tuple[Any, ...]) -> Terminal:
    return Terminal(id=row[0], width=row[1], height=row[2], execution=rows.execution(row[3:]))


def _page(db: apsw.Connection, *, values: tuple[Any, ...]) -> list[Terminal]:
    return [_terminal(row) for row in db.execute(_SQL["page"], values)]


def _create(
    db: apsw.Connection, sealer: Sealer, new: NewTerminal, claim: IdempotencyClaim | None
) -> Execution | Replayed | KeyReused:
    made = executions.create(db, sealer, new.execution, claim)
    if isinstance(made, Execution):
        db.execute(_SQL["insert"], (made.number, new.id, new.width, new.height))
    return made
