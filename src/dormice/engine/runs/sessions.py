"""Sessions: what agents remember of them, what was said, and which runs they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from dormice.domain.run import Json
from dormice.engine.clock import Clock
from dormice.store.sessions import Memory, Message, SessionStore
from dormice.store.workflows import Project


class Sessions:
    """Raises StoreUnavailable."""

    def __init__(self, *, store: SessionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def memory(self, project: Project, session_id: str) -> Memory:
        """Return what is remembered; of a session that is not known, nothing."""
        return await self._store.memory(project.id, session_id) or Memory()

    async def remember(self, project: Project, session_id: str, memory: Memory) -> None:
        """Record it, in place of what was remembered before."""
        await self._store.remember(project.id, session_id, memory, self._clock.now())

    async def say(
        self,
        project: Project,
        conversation_id: str,
        agent_id: str,
        *,
        role: str,
        content: Json,
        agent_run_id: str | None,
        deployment_id: str | None,
        keep: int | None,
    ) -> None:
        """Record a message; with `keep`, forget all but so many of the latest."""
        message = Message(
            id=str(uuid4()),
            conversation_id=conversation_id,
            agent_id=agent_id,
            role=role,
            content=content,
            created_at=self._clock.now(),
            agent_run_id=agent_run_id,
            deployment_id=deployment_id,
        )
        await self._store.say(project.id, message, keep=keep)

    async def said(
        self, project: Project, conversation_id: str, agent_id: str, *, deployment_id: str | None, limit: int
    ) -> Sequence[Message]:
        """Return the latest messages, oldest first."""
        return await self._store.said(project.id, conversation_id, agent_id, deployment_id=deployment_id, limit=limit)
