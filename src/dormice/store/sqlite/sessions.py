"""What agents remember of sessions, and what was said in conversations."""

from __future__ import annotations

from functools import partial
from typing import Any

import apsw

from dormice.domain.execution import Micros
from dormice.store.sessions import Memory, Message
from dormice.store.sqlite import statements
from dormice.store.sqlite.reader import SHORT_BYTES, Reader
from dormice.store.sqlite.writer import Writer

_SQL = statements.load("sessions.sql")


class SqliteSessions:
    """SessionStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def memory(self, project_id: str, session_id: str) -> Memory | None:
        row: Any = await self._reader.scan(lambda db: db.execute(_SQL["memory"], (project_id, session_id)).fetchone())
        return None if row is None else Memory(summary=row[0], messages=row[1])

    async def remember(self, project_id: str, session_id: str, memory: Memory, now: Micros) -> None:
        values = (project_id, session_id, memory.summary, memory.messages, now)
        short = len(memory.messages) + len(memory.summary or "") <= SHORT_BYTES
        await self._writer.run(lambda db: db.execute(_SQL["remember"], values) and None, short=short)

    async def say(self, project_id: str, message: Message, *, keep: int | None) -> None:
        await self._writer.run(partial(_say, project_id=project_id, message=message, keep=keep))

    async def said(
        self, project_id: str, conversation_id: str, agent_id: str, *, deployment_id: str | None, limit: int
    ) -> list[Message]:
        values = (project_id, conversation_id, agent_id, deployment_id, limit)
        rows = await self._reader.scan(lambda db: db.execute(_SQL["said"], values).fetchall())
        return [_message(row) for row in reversed(rows)]


def _say(db: apsw.Connection, project_id: str, message: Message, keep: int | None) -> None:
    values = (
        message.id,
        project_id,
        message.conversation_id,
        message.agent_id,
        message.role,
        message.content,
        message.agent_run_id,
        message.deployment_id,
        message.created_at,
    )
    db.execute(_SQL["say"], values)
    if keep is not None:
        db.execute(_SQL["forget"], (project_id, message.conversation_id, message.agent_id, keep))


def _message(row: tuple[Any, ...]) -> Message:
    identity, conversation_id, agent_id, role, content, created_at, agent_run_id, deployment_id = row
    return Message(
        id=identity,
        conversation_id=conversation_id,
        agent_id=agent_id,
        role=role,
        content=content,
        created_at=created_at,
        agent_run_id=agent_run_id,
        deployment_id=deployment_id,
    )
