"""The HTTP application: routes over the engine's services."""

from __future__ import annotations

from dormice.api.http.access import Access
from dormice.api.http.admission import Admission
from dormice.api.http.asgi import ASGIApp
from dormice.api.http.operation import Operation
from dormice.api.http.router import Router
from dormice.api.machines.artifacts import ArtifactRoutes
from dormice.api.machines.autoresizing import AutoresizingRoutes
from dormice.api.machines.executions import ExecutionRoutes
from dormice.api.machines.files import FileRoutes
from dormice.api.machines.logs import LogRoutes
from dormice.api.machines.machines import MachineRoutes
from dormice.api.machines.snapshots import SnapshotRoutes
from dormice.api.machines.ssh import SshRoutes
from dormice.api.machines.terminal_stream import TerminalStream
from dormice.api.machines.terminals import TerminalRoutes
from dormice.api.machines.usage import UsageRoutes
from dormice.api.openapi import document_operation
from dormice.api.previews.proxy import PreviewProxy
from dormice.api.previews.routes import PreviewRoutes
from dormice.api.service.health import HealthRoutes
from dormice.api.service.keys import KeyRoutes
from dormice.api.service.limits import LimitRoutes
from dormice.api.service.metrics import MetricRoutes
from dormice.api.services import Services
from dormice.api.webhooks.webhooks import WebhookRoutes
from dormice.api.workflows.openapi import document_operation as workflows_document_operation
from dormice.api.workflows.routes import workflow_operations


def create_app(services: Services) -> Access:
    """Return the application. It starts nothing: the services are run by whoever made them."""
    admission = Admission(services)
    operations = all_operations(services, admission)
    sockets = [TerminalStream(services, admission).socket()]
    routed = [*operations, document_operation(operations, services.limits)]
    if services.workflows is not None:
        workflows = workflow_operations(services.workflows, services.limits, admission)
        routed += [*workflows, workflows_document_operation(workflows, services.limits)]
    served: ASGIApp = Router(routed, sockets, services.limits, admission)
    if services.previews is not None:
        served = PreviewProxy(services, services.previews, admission, served)
    return Access(served, places=admission.places, requests=services.requests, tracer=services.tracer)


def all_operations(services: Services, admission: Admission) -> list[Operation]:
    """Return every documented route."""
    return [
        *MachineRoutes(services).operations(),
        *SnapshotRoutes(services).operations(),
        *AutoresizingRoutes(services).operations(),
        *ExecutionRoutes(services).operations(),
        *TerminalRoutes(services).operations(),
        *LogRoutes(services, admission).operations(),
        *UsageRoutes(services).operations(),
        *(PreviewRoutes(services, services.previews).operations() if services.previews is not None else ()),
        *SshRoutes(services).operations(),
        *FileRoutes(services).operations(),
        *ArtifactRoutes(services, admission).operations(),
        *KeyRoutes(services).operations(),
        *WebhookRoutes(services).operations(),
        *LimitRoutes(services).operations(),
        *HealthRoutes(services).operations(),
        *MetricRoutes(services).operations(),
    ]
