"""The port of the store for sessions: what agents remember, and what was said."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from dormice.domain.execution import Micros
from dormice.domain.run import Json


class Memory(Struct, frozen=True, kw_only=True):
    """What is remembered of a session. `messages` is a JSON array."""

    summary: str | None = None
    messages: Json = b"[]"


class Message(Struct, frozen=True, kw_only=True):
    """Something that was said in a conversation with an agent. `content` is any JSON."""

    id: str
    conversation_id: str
    agent_id: str
    role: str
    content: Json
    created_at: Micros
    agent_run_id: str | None = None
    deployment_id: str | None = None


class SessionStore(Protocol):
    """Memories and conversations of a project."""

    async def memory(self, project_id: str, session_id: str) -> Memory | None:
        """Return what is remembered of a session."""
        ...

    async def remember(self, project_id: str, session_id: str, memory: Memory, now: Micros) -> None:
        """Record it, in place of what was remembered before."""
        ...

    async def say(self, project_id: str, message: Message, *, keep: int | None) -> None:
        """Record a message; with `keep`, only so many of the conversation with that agent stay, the latest."""
        ...

    async def said(
        self, project_id: str, conversation_id: str, agent_id: str, *, deployment_id: str | None, limit: int
    ) -> list[Message]:
        """Return the latest messages of a conversation with an agent, oldest first."""
        ...
