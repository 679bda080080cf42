"""All routes of the workflow surface."""

from __future__ import annotations

from dormice.api.http.admission import Admission
from dormice.api.http.operation import Operation
from dormice.api.services import WorkflowServices
from dormice.api.workflows.approvals import ApprovalRoutes
from dormice.api.workflows.attempts import AttemptRoutes
from dormice.api.workflows.definitions import DefinitionRoutes
from dormice.api.workflows.door import Door
from dormice.api.workflows.events import EventRoutes
from dormice.api.workflows.projects import ProjectRoutes
from dormice.api.workflows.pull import PullRoutes
from dormice.api.workflows.reruns import RerunRoutes
from dormice.api.workflows.run_lists import RunListRoutes
from dormice.api.workflows.runs import RunRoutes
from dormice.api.workflows.schedules import ScheduleRoutes
from dormice.api.workflows.session_lists import SessionListRoutes
from dormice.api.workflows.sessions import SessionRoutes
from dormice.api.workflows.traces import TraceRoutes
from dormice.api.workflows.triggers import TriggerRoutes
from dormice.api.workflows.work import WorkRoutes
from dormice.api.workflows.workers import WorkerRoutes
from dormice.domain.limits import Limits


def workflow_operations(services: WorkflowServices, limits: Limits, admission: Admission) -> list[Operation]:
    """Return every documented route."""
    door = Door(services, admission)
    return [
        *ApprovalRoutes(services, limits, door).operations(),
        *DefinitionRoutes(services, limits, door).operations(),
        *ProjectRoutes(services, limits, door).operations(),
        *RunListRoutes(services, limits, door).operations(),
        *RerunRoutes(services, limits, door).operations(),
        *WorkRoutes(services, limits, door).operations(),
        *SessionListRoutes(services, limits, door).operations(),
        *SessionRoutes(services, limits, door).operations(),
        *TraceRoutes(services, limits, door).operations(),
        *WorkerRoutes(services, limits, door).operations(),
        *RunRoutes(services, limits, door).operations(),
        *PullRoutes(services, limits, door).operations(),
        *AttemptRoutes(services, limits, door).operations(),
        *EventRoutes(services, limits, door).operations(),
        *ScheduleRoutes(services, limits, door).operations(),
        *TriggerRoutes(services, limits, door).operations(),
    ]
