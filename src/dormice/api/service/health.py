"""Routes that say whether the server is well."""

from __future__ import annotations

from msgspec import Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.operation import Answer, Operation
from dormice.api.http.replies import json_reply
from dormice.api.services import Services


class HealthRecord(Struct, kw_only=True):
    """The server answers."""

    status: str


class Part(Struct, omit_defaults=True, kw_only=True):
    """A part of the server."""

    ready: bool
    detail: str = ""


class ReadinessRecord(Struct, kw_only=True):
    """Whether all parts are ready, and which is not."""

    ready: bool
    parts: dict[str, Part]


class HealthRoutes:
    """Handlers over the health service."""

    def __init__(self, services: Services) -> None:
        self._health = services.health

    async def health(self, _call: Call) -> ASGIApp:
        """GET /health, /healthz."""
        return json_reply(HealthRecord(status="healthy"))

    async def ready(self, _call: Call) -> ASGIApp:
        """GET /readyz."""
        parts = {name: Part(ready=ready, detail=detail) for name, (ready, detail) in self._health.parts().items()}
        ready = all(part.ready for part in parts.values())
        return json_reply(ReadinessRecord(ready=ready, parts=parts), status=200 if ready else 503)

    def operations(self) -> list[Operation]:
        """Return the routes."""
        alive = {200: Answer("The server serves.", HealthRecord)}
        return [
            *(
                Operation(
                    id=name,
                    method="GET",
                    path=f"/{name}",
                    tag="service",
                    summary="Whether the server serves",
                    handle=self.health,
                    answers=alive,
                    public=True,
                )
                for name in ("health", "healthz")
            ),
            Operation(
                id="readyz",
                method="GET",
                path="/readyz",
                tag="service",
                summary="Whether every part is ready",
                handle=self.ready,
                answers={
                    200: Answer("Every part is ready.", ReadinessRecord),
                    503: Answer("Some part is not.", ReadinessRecord),
                },
                public=True,
            ),
        ]
