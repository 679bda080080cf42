"""The HTTP application: routes over the engine's services."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from litestar import Litestar
from litestar.types import ASGIApp

from dormice.api.http.access import Access
from dormice.api.http.admission import Admission
from dormice.api.http.call import Call
from dormice.api.http.direct import Direct
from dormice.api.http.errors import respond
from dormice.api.http.operation import Operation, options_route, route
from dormice.api.http.replies import Reply
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
from dormice.api.openapi import document, document_operation
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

MOST_REQUESTS = 10_000
"""Requests, long polls and streams included, that are served at once; one more is answered 503."""


def create_app(services: Services) -> Litestar:
    """Return the application. It starts nothing: the services are run by whoever made them."""
    admission = Admission(services)
    operations = all_operations(services, admission)
    sockets = [TerminalStream(services, admission).socket()]
    described = msgspec.json.encode(document(operations, services.limits))

    async def openapi(_call: Call) -> ASGIApp:
        return Reply(described)

    routed = [*operations, document_operation(openapi)]
    if services.workflows is not None:
        workflows = workflow_operations(services.workflows, services.limits, admission)
        routed += [*workflows, workflows_document_operation(workflows, services.limits)]
    app = Litestar(
        [
            # First, or the framework adds its own answer to OPTIONS, which has no body.
            *(options_route(path, methods) for path, methods in _methods(routed).items()),
            *(route(operation, services.limits, admission) for operation in routed),
        ],
        exception_handlers={Exception: respond},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,  # http/bodies.py bounds bodies, with answers of our shape
    )
    served: ASGIApp = Direct(routed, sockets, services.limits, admission, app.asgi_handler)
    if services.previews is not None:
        served = PreviewProxy(services, services.previews, admission, served)
    app.asgi_handler = Access(
        served,
        most_requests=MOST_REQUESTS,
        requests=services.requests,
        tracer=services.tracer,
    )
    return app


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
        *ArtifactRoutes(services).operations(),
        *KeyRoutes(services).operations(),
        *WebhookRoutes(services).operations(),
        *LimitRoutes(services).operations(),
        *HealthRoutes(services).operations(),
        *MetricRoutes(services).operations(),
    ]


def _methods(operations: Iterable[Operation]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for operation in operations:
        found.setdefault(operation.path, []).append(operation.method)
    return found
