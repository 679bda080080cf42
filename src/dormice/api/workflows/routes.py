"""All routes of the workflow surface."""

from __future__ import annotations

from dormice.api.http.admission import Admission
from dormice.api.http.operation import Operation
from dormice.api.services import WorkflowServices
from dormice.api.workflows.attempts import AttemptRoutes
from dormice.api.workflows.door import Door
from dormice.api.workflows.events import EventRoutes
from dormice.api.workflows.pull import PullRoutes
from dormice.api.workflows.runs import RunRoutes
from dormice.api.workflows.schedules import ScheduleRoutes
from dormice.api.workflows.triggers import TriggerRoutes
from dormice.api.workflows.workers import WorkerRoutes
from dormice.domain.limits import Limits


def workflow_operations(services: WorkflowServices, limits: Limits, admission: Admission) -> list[Operation]:
    """Return every documented route."""
    door = Door(services, admission)
    return [
        *WorkerRoutes(services, limits, door).operations(),
        *RunRoutes(services, limits, door).operations(),
        *PullRoutes(services, limits, door).operations(),
        *AttemptRoutes(services, limits, door).operations(),
        *EventRoutes(services, limits, door).operations(),
        *ScheduleRoutes(services, limits, door).operations(),
        *TriggerRoutes(services, limits, door).operations(),
    ]
