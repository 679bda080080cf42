"""The route that tells every limit and default."""

from __future__ import annotations

from dataclasses import asdict

import msgspec
from msgspec import Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.operation import Answer, Operation
from dormice.api.http.replies import Reply
from dormice.api.services import Services


class LimitsRecord(Struct, kw_only=True):
    """Limits and defaults by name; units are in the names."""

    limits: dict[str, int | float]
    defaults: dict[str, int | float]
    machine: dict[str, int | float | str]


class LimitRoutes:
    """The handler; what it answers never changes while the server runs."""

    def __init__(self, services: Services) -> None:
        numbers: dict[str, int | float] = asdict(services.limits)
        defaults = {name: value for name, value in numbers.items() if "default" in name}
        record = LimitsRecord(
            limits={name: value for name, value in numbers.items() if name not in defaults},
            defaults=defaults,
            machine=asdict(services.defaults),
        )
        self._body = msgspec.json.encode(record)

    async def limits(self, _call: Call) -> ASGIApp:
        """GET /v1/limits."""
        return Reply(self._body)

    def operations(self) -> list[Operation]:
        """Return the route."""
        return [
            Operation(
                id="getLimits",
                method="GET",
                path="/v1/limits",
                tag="service",
                summary="Every limit and default",
                description="`limits`: bounds. `defaults`: what a request gets when it does not say. `machine`: likewise for machines.",
                handle=self.limits,
                answers={200: Answer("The numbers.", LimitsRecord)},
            )
        ]
