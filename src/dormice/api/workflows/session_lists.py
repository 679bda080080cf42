"""Routes that show sessions: what agents were asked, what they did, and what they asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.operation import Operation, Parameter
from dormice.api.http.replies import json_reply
from dormice.api.services import WorkflowServices
from dormice.api.workflows import parameters, wire
from dormice.api.workflows.door import Door, bad
from dormice.domain import documents
from dormice.domain.limits import Limits
from dormice.domain.moments import rfc3339
from dormice.domain.run import Event, RunState
from dormice.engine.orders import Caller
from dormice.engine.runs.sessions import SessionSummary
from dormice.store.projects import Project

_PAGE = 50
_PREVIEW_CHARS = 200
_ASKED, _ANSWERED = "suspend_", "resume_"
_STATES = {state.value: state for state in RunState}


class SessionRecord(Struct, kw_only=True):
    """A session by its last run of an agent, which all but `execution_count` is of."""

    execution_id: str
    agent_id: str
    session_id: str | None
    status: str
    user_message_preview: str | None
    created_at: str
    total_tokens: int | None
    tool_call_count: int
    approval_count: int
    error: str | None
    execution_count: int


class SessionList(Struct, kw_only=True):
    """Sessions, the newest first."""

    sessions: list[SessionRecord]


class TimelineEntry(Struct, kw_only=True):
    """Something that happened in a session."""

    entry_type: Annotated[
        str,
        Meta(description="`user_message`, `assistant_message`, `tool_call`, `approval_request`, `approval_response`."),
    ]
    timestamp: str
    data: Raw


class SessionApproval(Struct, kw_only=True):
    """A question of a session."""

    step_key: str
    requested_at: str
    resolved_at: str | None
    status: Annotated[str, Meta(description="`pending` or `resolved`.")]
    data: Raw


class SessionDetail(Struct, kw_only=True):
    """One run of an agent."""

    execution_id: str
    agent_id: str
    session_id: str | None
    status: str
    created_at: str
    started_at: str | None
    completed_at: str | None
    duration_ms: float | None
    error: str | None
    payload: Raw
    result: Raw
    total_input_tokens: int | None
    total_output_tokens: int | None
    total_tokens: int | None
    tool_call_count: int
    approval_count: int
    timeline: list[TimelineEntry]
    approvals: list[SessionApproval]


class SessionListRoutes:
    """Handlers over sessions."""

    def __init__(self, services: WorkflowServices, _limits: Limits, door: Door) -> None:
        self._sessions = services.sessions
        self._door = door

    async def page(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/sessions."""
        status = parameters.text(call, "status")
        if status is not None and status not in _STATES:
            raise bad(f"status must be one of {', '.join(_STATES)}", "query.status")
        found = await self._sessions.page(
            project,
            agent_id=parameters.text(call, "agent_id"),
            state=None if status is None else _STATES[status],
            since=parameters.moment(call, "start_time"),
            until=parameters.moment(call, "end_time"),
            offset=parameters.offset(call),
            limit=parameters.page_size(call, _PAGE),
        )
        return json_reply(SessionList(sessions=[_record(one) for one in found]))

    async def get(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/sessions/{execution_id}."""
        return json_reply(_detail(await self._sessions.get(project, call.path["execution_id"])))

    def operations(self) -> Sequence[Operation]:
        """Return the routes."""
        route = self._door.route
        words = {"type": "string"}
        return [
            route(
                "sessions",
                "listSessions",
                "GET",
                "/api/v1/sessions",
                "List sessions with agents",
                self.page,
                SessionList,
                parameters=[
                    Parameter("agent_id", "query", words, "With this agent."),
                    Parameter("status", "query", words, "Whose last run is in this state."),
                    parameters.START,
                    parameters.END,
                    parameters.LIMIT,
                    parameters.OFFSET,
                ],
            ),
            route(
                "sessions",
                "getSession",
                "GET",
                "/api/v1/sessions/{execution_id}",
                "Read what happened in a run of an agent",
                self.get,
                SessionDetail,
            ),
        ]


def _record(one: SessionSummary) -> SessionRecord:
    run = one.run
    return SessionRecord(
        execution_id=run.id,
        agent_id=run.workflow_id,
        session_id=run.session_id,
        status=run.state.value,
        user_message_preview=_preview(_input(one.payload)),
        created_at=rfc3339(run.created_at),
        total_tokens=one.usage.total_tokens,
        tool_call_count=len(one.tool_calls),
        approval_count=sum(_is(event, _ASKED) for event in one.questions),
        error=run.error,
        execution_count=one.runs,
    )


def _detail(one: SessionSummary) -> SessionDetail:
    run = one.run
    ends = run.completed_at
    return SessionDetail(
        execution_id=run.id,
        agent_id=run.workflow_id,
        session_id=run.session_id,
        status=run.state.value,
        created_at=rfc3339(run.created_at),
        started_at=wire.time(run.started_at),
        completed_at=wire.time(ends),
        duration_ms=None if ends is None or run.started_at is None else (ends - run.started_at) / 1000,
        error=run.error,
        payload=documents.raw(one.payload),
        result=documents.raw(one.result),
        total_input_tokens=one.usage.input_tokens,
        total_output_tokens=one.usage.output_tokens,
        total_tokens=one.usage.total_tokens,
        tool_call_count=len(one.tool_calls),
        approval_count=sum(_is(event, _ASKED) for event in one.questions),
        timeline=_timeline(one),
        approvals=_approvals(one.questions),
    )


def _timeline(one: SessionSummary) -> list[TimelineEntry]:
    run = one.run
    found = [(run.created_at, "user_message", msgspec.json.encode({"content": _input(one.payload)}))]
    for call in one.tool_calls:
        told = {
            "execution_id": call.id,
            "tool_id": call.workflow_id,
            "step_key": call.step_key,
            "status": call.state.value,
            "error": call.error,
        }
        found.append((call.created_at, "tool_call", msgspec.json.encode(told)))
    for event in one.questions:
        kind, mark = ("approval_request", _ASKED) if _is(event, _ASKED) else ("approval_response", _ANSWERED)
        asked = {"step_key": (event.event_type or "").removeprefix(mark), "data": Raw(event.data)}
        found.append((event.created_at, kind, msgspec.json.encode(asked)))
    if one.result is not None and run.completed_at is not None:
        found.append((run.completed_at, "assistant_message", msgspec.json.encode({"content": Raw(one.result)})))
    found.sort(key=lambda entry: entry[0])
    return [TimelineEntry(entry_type=kind, timestamp=rfc3339(at), data=Raw(data)) for at, kind, data in found]


def _approvals(events: Sequence[Event]) -> list[SessionApproval]:
    found: dict[str, SessionApproval] = {}
    requests: dict[str, Event] = {}
    for event in events:
        kind = event.event_type or ""
        key = kind.removeprefix(_ASKED).removeprefix(_ANSWERED)
        if kind.startswith(_ASKED):
            requests[key] = event
            found[key] = SessionApproval(
                step_key=key,
                requested_at=rfc3339(event.created_at),
                resolved_at=None,
                status="pending",
                data=Raw(msgspec.json.encode({"request": Raw(event.data)})),
            )
        elif key in requests:
            told = {"request": Raw(requests[key].data), "response": Raw(event.data)}
            found[key].resolved_at = rfc3339(event.created_at)
            found[key].status = "resolved"
            found[key].data = Raw(msgspec.json.encode(told))
    return list(found.values())


def _is(event: Event, mark: str) -> bool:
    return (event.event_type or "").startswith(mark)


def _input(payload: bytes | None) -> Any:
    """What an agent was asked: the SDK puts it under `input`."""
    try:
        document = msgspec.json.decode(payload or b"null")
    except (msgspec.DecodeError, RecursionError):
        return None
    return document.get("input") if isinstance(document, dict) else document


def _preview(asked: Any) -> str | None:
    """The beginning of the last thing that a user has said."""
    if isinstance(asked, list):
        said = [one for one in asked if isinstance(one, dict) and one.get("role") == "user"]
        asked = said[-1].get("content") if said else None
    if isinstance(asked, list):
        asked = next((one.get("text") for one in asked if isinstance(one, dict) and "text" in one), None)
    return asked[:_PREVIEW_CHARS] if isinstance(asked, str) else None
