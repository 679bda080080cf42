"""Routes of sessions: memory and conversations, for agents."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Operation, Parameter
from dormice.api.http.replies import json_reply
from dormice.api.services import WorkflowServices
from dormice.api.workflows import parameters
from dormice.api.workflows.door import Door, bad, empty
from dormice.domain.limits import Limits
from dormice.domain.moments import rfc3339
from dormice.engine.orders import Caller
from dormice.store.projects import Project
from dormice.store.sessions import Memory, Message

_SAID = 50


class MemoryRecord(Struct, kw_only=True):
    """What is remembered of a session."""

    summary: str | None
    messages: list[Raw]


class MessageRequest(Struct, kw_only=True):
    """Something that was said."""

    agent_id: str
    role: str
    content: Raw
    agent_run_id: str | None = None
    deployment_id: str | None = None
    conversation_history_limit: int | None = None


class MessageRecord(Struct, kw_only=True):
    """Something that was said."""

    id: str
    conversation_id: str
    agent_id: str
    role: str
    content: Raw
    created_at: str
    agent_run_id: str | None


class MessageList(Struct, kw_only=True):
    """What was said, oldest first."""

    messages: list[MessageRecord]


_MEMORY = BodyDecoder(MemoryRecord)
_MESSAGE = BodyDecoder(MessageRequest)


class SessionRoutes:
    """Handlers over memories and conversations."""

    def __init__(self, services: WorkflowServices, limits: Limits, door: Door) -> None:
        self._sessions = services.sessions
        self._limits = limits
        self._door = door

    async def memory(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /internal/session/{session_id}/memory."""
        found = await self._sessions.memory(project, self._id(call, "session_id"))
        messages = msgspec.json.decode(found.messages, type=list[Raw])
        return json_reply(MemoryRecord(summary=found.summary, messages=messages))

    async def remember(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """PUT /internal/session/{session_id}/memory."""
        body = _MEMORY.decode(call.header("Content-Type"), await call.body(self._limits.workflow_body_bytes))
        memory = Memory(summary=body.summary, messages=msgspec.json.encode(body.messages))
        await self._sessions.remember(project, self._id(call, "session_id"), memory)
        return empty()

    async def say(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /internal/conversation/{conversation_id}/add."""
        body = _MESSAGE.decode(call.header("Content-Type"), await call.body(self._limits.workflow_body_bytes))
        keep = body.conversation_history_limit
        if keep is not None and not 0 < keep <= self._limits.page_max:
            raise bad(
                f"conversation_history_limit must be from 1 to {self._limits.page_max} (page_max)",
                "body.conversation_history_limit",
            )
        await self._sessions.say(
            project,
            self._id(call, "conversation_id"),
            body.agent_id,
            role=body.role,
            content=bytes(body.content),
            agent_run_id=body.agent_run_id,
            deployment_id=body.deployment_id,
            keep=keep,
        )
        return empty()

    async def said(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/conversation/{conversation_id}/get."""
        agent_id = parameters.text(call, "agent_id")
        if agent_id is None:
            raise bad("agent_id is required", "query.agent_id")
        found = await self._sessions.said(
            project,
            self._id(call, "conversation_id"),
            agent_id,
            deployment_id=parameters.text(call, "deployment_id"),
            limit=parameters.page_size(call, _SAID),
        )
        return json_reply(MessageList(messages=[_message(one) for one in found]))

    def _id(self, call: Call, name: str) -> str:
        if len(call.path[name]) > self._limits.session_id_chars:
            raise bad(
                f"{name} must have at most {self._limits.session_id_chars} characters (session_id_chars)",
                f"path.{name}",
            )
        return call.path[name]

    def operations(self) -> Sequence[Operation]:
        """Return the routes."""
        route = self._door.route
        words = {"type": "string"}
        return [
            route(
                "sessions",
                "getMemory",
                "GET",
                "/internal/session/{session_id}/memory",
                "Read what is remembered of a session",
                self.memory,
                MemoryRecord,
                description="Of a session that is not known, nothing is.",
            ),
            route(
                "sessions",
                "putMemory",
                "PUT",
                "/internal/session/{session_id}/memory",
                "Remember something of a session, in place of what was remembered before",
                self.remember,
                body=MemoryRecord,
            ),
            route(
                "sessions",
                "addMessage",
                "POST",
                "/internal/conversation/{conversation_id}/add",
                "Add to a conversation",
                self.say,
                body=MessageRequest,
            ),
            route(
                "sessions",
                "listMessages",
                "GET",
                "/api/v1/conversation/{conversation_id}/get",
                "Read a conversation with an agent",
                self.said,
                MessageList,
                parameters=[
                    Parameter("agent_id", "query", words, "The agent.", required=True),
                    Parameter("deployment_id", "query", words, "What was said with this deployment only."),
                    parameters.LIMIT,
                ],
            ),
        ]


def _message(one: Message) -> MessageRecord:
    return MessageRecord(
        id=one.id,
        conversation_id=one.conversation_id,
        agent_id=one.agent_id,
        role=one.role,
        content=Raw(one.content),
        created_at=rfc3339(one.created_at),
        agent_run_id=one.agent_run_id,
    )
