"""Routes of events: publish, read, follow."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec

from dormice.api.http import sse
from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Operation, Parameter
from dormice.api.http.pagination import sequence_cursor
from dormice.api.http.replies import json_reply
from dormice.api.services import WorkflowServices
from dormice.api.workflows import parameters, wire
from dormice.api.workflows.door import Door, bad
from dormice.api.workflows.runs import uuid_or_none
from dormice.domain.errors import NotFound
from dormice.domain.limits import Limits
from dormice.domain.moments import rfc3339
from dormice.domain.run import Event, RunState
from dormice.engine.orders import Caller
from dormice.engine.runs.checks import check_topic
from dormice.engine.runs.events import EventOrder
from dormice.store.projects import Project

_PUBLISH = BodyDecoder(wire.PublishRequest)
_encode = msgspec.json.Encoder().encode
_AT_ONCE = 100
_ORDER = {"type": "string", "enum": ["asc", "desc"], "default": "asc"}
_LINE_ENDS = {
    b"\n": b" ",
    b"\r": b" ",
    "\x85".encode(): b"\\u0085",
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}
_LINGER_MS = 5_000
"""How long a stream of a run's events goes on after the run has completed: what it published last may still be on its way."""


class EventRoutes:
    """Handlers over events."""

    def __init__(self, services: WorkflowServices, limits: Limits, door: Door) -> None:
        self._services = services
        self._events = services.events
        self._limits = limits
        self._door = door

    async def publish(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/events/publish."""
        body = _PUBLISH.decode(call.header("Content-Type"), await call.body(self._limits.workflow_body_bytes))
        check_topic(body.topic, self._limits, "body.topic")
        if not 0 < len(body.events) <= self._limits.events_per_request:
            raise bad(
                f"events must have from 1 to {self._limits.events_per_request} entries (events_per_request)",
                "body.events",
            )
        whole = uuid_or_none(body.execution_id)
        if body.durable and None in (whole, uuid_or_none(body.root_execution_id)):
            raise bad("durable events need execution_id and root_execution_id, both UUIDs", "body.durable")
        orders = [
            EventOrder(
                event_type=event.event_type,
                data=bytes(event.data),
                run_id=uuid_or_none(event.execution_id) or whole,
                attempt_number=event.attempt_number,
            )
            for event in body.events
        ]
        made = await self._events.publish(project, body.topic, orders)
        record = wire.Published(sequence_ids=[one.sequence for one in made], created_at=rfc3339(made[0].created_at))
        return json_reply(record)

    async def page(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/events."""
        topic = call.query.get("topic", "")
        check_topic(topic, self._limits, "query.topic")
        limit = call.integer("limit", default=_AT_ONCE, maximum=self._limits.page_max) or _AT_ONCE
        found = await self._events.page(
            project,
            topic,
            after=call.integer("last_sequence_id", default=0),
            since=parameters.moment(call, "last_timestamp"),
            limit=limit,
            newest_first=call.query.get("sort") == "desc",
        )
        last = found[-1].sequence if found else None
        records = [_record(event) for event in found]
        return json_reply(wire.EventList(events=records, next_sequence_id=last, has_more=len(found) == limit))

    async def stream(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/events/stream."""
        workflow_id, run_id = call.query.get("workflow_id"), call.query.get("workflow_run_id")
        after: int | None = call.integer("last_sequence_id", default=0) if call.query.get("last_sequence_id") else None
        if resumed := call.header("Last-Event-ID"):  # a browser that connects again asks for the same URL
            after = sequence_cursor(resumed, "header.Last-Event-ID")
        since = None if after is not None else parameters.moment(call, "last_timestamp")
        if run_id is not None:
            if not workflow_id:
                raise bad("workflow_id is required with workflow_run_id", "query.workflow_id")
            topic = f"workflow/{workflow_id}/{run_id}"
        else:
            topic = call.query.get("topic", "")
        check_topic(topic, self._limits, "query.topic")
        return sse.event_stream(self._follow(project, topic, run_id, after or 0, since))

    async def _follow(
        self, project: Project, topic: str, run_id: str | None, after: int, since: int | None
    ) -> AsyncGenerator[bytes, None]:
        """Yield frames; a run's stream ends once the run has ended and all is told."""
        while True:
            state = None if run_id is None else await self._state(project, run_id)
            ended = state in (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)
            wait_ms = 0 if state in (RunState.FAILED, RunState.CANCELLED) else sse.KEEP_ALIVE_MS
            found = await self._events.follow(
                project,
                topic,
                after=after,
                since=since,
                limit=_AT_ONCE,
                wait_ms=_LINGER_MS if ended and wait_ms else wait_ms,
                run_id=uuid_or_none(run_id),
            )
            if found:
                after = found[-1].sequence
                yield b"".join(map(_frame, found))
            elif self._events.closing or ended:
                return
            else:
                yield sse.KEEP_ALIVE

    async def _state(self, project: Project, run_id: str) -> RunState | None:
        if uuid_or_none(run_id) is None:
            return None
        try:
            return (await self._services.runs.find(project, run_id)).state
        except NotFound:
            return None

    def operations(self) -> list[Operation]:
        """Return the routes."""
        route = self._door.route
        text = {"type": "string"}
        number = {"type": "integer", "minimum": 0}
        since = Parameter("last_timestamp", "query", text, "Events later than this moment.")
        return [
            route(
                "events",
                "publishEvents",
                "POST",
                "/api/v1/events/publish",
                "Publish events",
                self.publish,
                wire.Published,
                body=wire.PublishRequest,
                description="All or none, in their order; runs that wait for them go on.",
            ),
            route(
                "events",
                "listEvents",
                "GET",
                "/api/v1/events",
                "Read events of a topic",
                self.page,
                wire.EventList,
                parameters=[
                    Parameter("topic", "query", text, "The topic.", required=True),
                    Parameter("sort", "query", _ORDER, "`desc`: the newest first."),
                    Parameter(
                        "last_sequence_id", "query", number, "Events after this one in that order: `next_sequence_id`."
                    ),
                    since,
                    Parameter("limit", "query", number, f"Events at most; 0 is the default, {_AT_ONCE}."),
                ],
            ),
            route(
                "events",
                "streamEvents",
                "GET",
                "/api/v1/events/stream",
                "Follow the events of a topic or of a run",
                self.stream,
                "text/event-stream",
                parameters=[
                    Parameter("topic", "query", text, "The topic."),
                    Parameter("workflow_id", "query", text, "With workflow_run_id: the run's workflow."),
                    Parameter("workflow_run_id", "query", text, "A root run, whose topic is followed until its end."),
                    Parameter("last_sequence_id", "query", number, "Events after this one."),
                    since,
                    Parameter(
                        "Last-Event-ID",
                        "header",
                        text,
                        "Resume after the event of this `id:`, which is its `sequence_id`; goes before the two others.",
                    ),
                ],
                description="Server-sent events: `id:` is the event's `sequence_id`, `data:` the event as in the page.",
            ),
        ]


def _record(event: Event) -> wire.EventRecord:
    return wire.EventRecord(
        id=event.id,
        sequence_id=event.sequence,
        topic=event.topic,
        event_type=event.event_type,
        data=msgspec.Raw(event.data),
        created_at=rfc3339(event.created_at),
    )


def _frame(event: Event) -> bytes:
    return b"id: %d\ndata: %s\n\n" % (event.sequence, _one_line(_encode(_record(event))))


def _one_line(record: bytes) -> bytes:
    """Return JSON without line ends, those of Unicode included: the foreign SDK ends a line of a stream at each of them.

    Bare ones stand between tokens only, the others in strings only.
    """
    for end, instead in _LINE_ENDS.items():
        record = record.replace(end, instead)
    return record
