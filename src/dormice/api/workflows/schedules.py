"""Routes of schedules."""

from __future__ import annotations

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Operation, Parameter
from dormice.api.http.replies import json_reply
from dormice.api.services import WorkflowServices
from dormice.api.workflows import automation_wire as wire
from dormice.api.workflows import parameters
from dormice.api.workflows.door import Door, bad, empty
from dormice.domain.automation import CatchUp, Schedule
from dormice.domain.limits import Limits
from dormice.engine.orders import Caller
from dormice.engine.runs.checks import check_given
from dormice.engine.runs.orders import ScheduleOrder
from dormice.store.projects import Project

_SCHEDULE = BodyDecoder(wire.ScheduleRequest)
_PATH = "/api/v1/schedules"
_MOST_UPCOMING = 100


class ScheduleRoutes:
    """Handlers over schedules."""

    def __init__(self, services: WorkflowServices, limits: Limits, door: Door) -> None:
        self._schedules = services.schedules
        self._limits = limits
        self._door = door

    async def put(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/schedules."""
        body = _SCHEDULE.decode(call.header("Content-Type"), await call.body())
        check_given(body.workflow_id, "body.workflow_id")
        if not 0 < len(body.key) <= self._limits.schedule_key_chars:
            most = self._limits.schedule_key_chars
            raise bad(f"key must have from 1 to {most} characters (schedule_key_chars)", "body.key")
        if body.catch_up is not None and body.catch_up not in set(CatchUp):
            raise bad(f"catch_up must be one of {', '.join(CatchUp)}", "body.catch_up")
        order = ScheduleOrder(
            workflow_id=body.workflow_id,
            key=body.key,
            cron=body.cron,
            timezone=body.timezone,
            catch_up=None if body.catch_up is None else CatchUp(body.catch_up),
            overlap=body.overlap,
        )
        return json_reply(wire.ScheduleStored(schedule_id=(await self._schedules.put(project, order)).id))

    async def page(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/schedules."""
        limit = (
            call.integer("limit", default=self._limits.page_default, maximum=self._limits.page_max)
            or self._limits.page_default
        )
        after = call.query.get("cursor", "")
        found = [one for one in self._schedules.all(project, call.query.get("workflow_id")) if one.id > after]
        found = [one for one in found if call.query.get("key") in (None, one.key)]
        more = len(found) > limit
        records = [self._record(call, one) for one in found[:limit]]
        return json_reply(wire.SchedulePage(schedules=records, next_cursor=records[-1].id if more else None))

    async def of_workflow(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/schedules/workflows/{workflow_id}."""
        found = self._schedules.all(project, call.path["workflow_id"])
        return json_reply(wire.ScheduleList(schedules=[self._record(call, one) for one in found]))

    async def workflows(self, _call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/schedules/workflows."""
        return json_reply(wire.ScheduledWorkflows(workflow_ids=self._schedules.workflows(project)))

    async def get(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/schedules/{schedule_id}."""
        return json_reply(self._record(call, self._schedules.find(project, call.path["schedule_id"])))

    async def ticks(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET /api/v1/schedules/{schedule_id}/ticks."""
        limit = call.integer("limit", default=self._limits.page_default, maximum=self._limits.page_max)
        found = await self._schedules.ticks(
            project, call.path["schedule_id"], before=parameters.moment(call, "before"), limit=limit
        )
        return json_reply(wire.TickList(ticks=[wire.tick(one) for one in found]))

    async def pause(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/schedules/{schedule_id}/pause."""
        return json_reply(self._record(call, await self._schedules.pause(project, call.path["schedule_id"])))

    async def resume(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/schedules/{schedule_id}/resume."""
        return json_reply(self._record(call, await self._schedules.resume(project, call.path["schedule_id"])))

    async def delete(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """DELETE /api/v1/schedules/{schedule_id}."""
        await self._schedules.delete(project, call.path["schedule_id"])
        return empty()

    def _record(self, call: Call, schedule: Schedule) -> wire.ScheduleRecord:
        count = call.integer("upcoming", default=0, maximum=_MOST_UPCOMING)
        return wire.schedule(schedule, self._schedules.upcoming(schedule, count))

    def operations(self) -> list[Operation]:
        """Return the routes."""
        return [*self._contract(), *self._additions()]

    def _contract(self) -> list[Operation]:
        route = self._door.route
        return [
            route(
                "schedules",
                "putSchedule",
                "POST",
                _PATH,
                "Make a schedule, or change the one with this workflow and key",
                self.put,
                wire.ScheduleStored,
                body=wire.ScheduleRequest,
                description="A schedule that is made again as it was keeps its next tick, and a paused one stays paused.",
            ),
            route(
                "schedules",
                "listSchedulesOfWorkflow",
                "GET",
                f"{_PATH}/workflows/{{workflow_id}}",
                "List the schedules of a workflow",
                self.of_workflow,
                wire.ScheduleList,
                parameters=_UPCOMING,
            ),
            route(
                "schedules",
                "listScheduledWorkflows",
                "GET",
                f"{_PATH}/workflows",
                "List the workflows that have schedules",
                self.workflows,
                wire.ScheduledWorkflows,
            ),
        ]

    def _additions(self) -> list[Operation]:
        route, one = self._door.route, f"{_PATH}/{{schedule_id}}"
        text, number = {"type": "string"}, {"type": "integer", "minimum": 0}
        return [
            route(
                "schedules",
                "listSchedules",
                "GET",
                _PATH,
                "List schedules",
                self.page,
                wire.SchedulePage,
                parameters=[
                    Parameter("workflow_id", "query", text, "Of this workflow."),
                    Parameter("key", "query", text, "With this key."),
                    Parameter("limit", "query", number, "At most so many."),
                    Parameter("cursor", "query", text, "The page before's next_cursor."),
                    *_UPCOMING,
                ],
            ),
            route(
                "schedules",
                "getSchedule",
                "GET",
                one,
                "Read a schedule",
                self.get,
                wire.ScheduleRecord,
                parameters=_UPCOMING,
            ),
            route(
                "schedules",
                "listTicks",
                "GET",
                f"{one}/ticks",
                "See what became of the last ticks",
                self.ticks,
                wire.TickList,
                description="The last 200 are kept, and those whose runs are open.",
                parameters=[
                    Parameter("limit", "query", number, "At most so many."),
                    Parameter("before", "query", text, "Ticks earlier than this moment."),
                ],
                exact=True,
            ),
            route("schedules", "pauseSchedule", "POST", f"{one}/pause", "Pause", self.pause, wire.ScheduleRecord),
            route(
                "schedules",
                "resumeSchedule",
                "POST",
                f"{one}/resume",
                "Go on after a pause",
                self.resume,
                wire.ScheduleRecord,
                description="What was not ticked meanwhile is not caught up.",
            ),
            route("schedules", "deleteSchedule", "DELETE", one, "Delete a schedule", self.delete),
        ]


_UPCOMING = [
    Parameter(
        "upcoming",
        "query",
        {"type": "integer", "minimum": 0, "maximum": _MOST_UPCOMING},
        "How many of the next ticks are told.",
    )
]
