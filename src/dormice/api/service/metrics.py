"""The route that Prometheus scrapes."""

from __future__ import annotations

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.operation import Answer, Operation
from dormice.api.http.replies import Reply
from dormice.api.services import Services
from dormice.domain.errors import Forbidden

MEDIA_TYPE = "text/plain"
_TEXT_FORMAT = b"text/plain; version=0.0.4; charset=utf-8"


class MetricRoutes:
    """The handler over the metrics service."""

    def __init__(self, services: Services) -> None:
        self._metrics = services.metrics

    async def metrics(self, call: Call) -> ASGIApp:
        """GET /metrics."""
        if not call.caller.admin:
            raise Forbidden("this needs an admin key: the figures are those of all organizations together")
        figures = await self._metrics.exposition()
        return Reply(figures, media_type=_TEXT_FORMAT, headers={"cache-control": "no-store"})

    def operations(self) -> list[Operation]:
        """Return the route."""
        return [
            Operation(
                id="getMetrics",
                method="GET",
                path="/metrics",
                tag="service",
                summary="Figures in the text format of Prometheus",
                description="For admin keys.",
                handle=self.metrics,
                answers={200: Answer("The figures.", media_types=(MEDIA_TYPE,))},
            )
        ]
