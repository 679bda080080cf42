"""Routes of event triggers."""

from __future__ import annotations

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Operation
from dormice.api.http.replies import json_reply
from dormice.api.services import WorkflowServices
from dormice.api.workflows import automation_wire as wire
from dormice.api.workflows.door import Door, bad, empty
from dormice.domain.limits import Limits
from dormice.engine.orders import Caller
from dormice.engine.runs.checks import check_positive, check_topic
from dormice.engine.runs.orders import TriggerOrder
from dormice.store.projects import Project

_TRIGGER = BodyDecoder(wire.TriggerRequest)
_PATH = "/api/v1/event-triggers"


class TriggerRoutes:
    """Handlers over event triggers."""

    def __init__(self, services: WorkflowServices, limits: Limits, door: Door) -> None:
        self._triggers = services.triggers
        self._limits = limits
        self._door = door

    async def register(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/event-triggers/register."""
        body = _TRIGGER.decode(call.header("Content-Type"), await call.body())
        self._check(body)
        order = TriggerOrder(
            workflow_id=body.workflow_id,
            deployment_id=body.deployment_id,
            topic=body.event_topic,
            batch_size=body.batch_size,
            batch_timeout_seconds=body.batch_timeout_seconds,
            queue_name=body.queue_name,
        )
        await self._triggers.register(project, order)
        return empty()

    def _check(self, body: wire.TriggerRequest) -> None:
        check_topic(body.event_topic, self._limits, "body.event_topic")
        events = self._limits.trigger_batch_events
        if not 0 < body.batch_size <= events:
            raise bad(f"batch_size must be from 1 to {events} (trigger_batch_events)", "body.batch_size")
        check_positive(body.batch_timeout_seconds, "body.batch_timeout_seconds")

    async def all(self, _call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/event-triggers."""
        records = [wire.trigger(one, active=self._triggers.fires(one)) for one in self._triggers.all(project)]
        return json_reply(wire.TriggerList(event_triggers=records))

    async def delete(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """DELETE /api/v1/event-triggers/{trigger_id}."""
        await self._triggers.delete(project, call.path["trigger_id"])
        return empty()

    def operations(self) -> list[Operation]:
        """Return the routes."""
        route = self._door.route
        return [
            route(
                "triggers",
                "registerTrigger",
                "POST",
                f"{_PATH}/register",
                "Have events of a topic start runs",
                self.register,
                body=wire.TriggerRequest,
                description="A new trigger begins with the next event; one that is registered again goes on where it is.",
            ),
            route(
                "triggers",
                "listTriggers",
                "GET",
                _PATH,
                "List event triggers",
                self.all,
                wire.TriggerList,
            ),
            route(
                "triggers",
                "deleteTrigger",
                "DELETE",
                f"{_PATH}/{{trigger_id}}",
                "Delete an event trigger",
                self.delete,
            ),
        ]
