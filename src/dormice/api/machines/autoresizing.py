"""Routes of autoresizing: whether a machine that is short of memory is given more, and whether an organization allows that."""

from __future__ import annotations

from msgspec import Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Answer, Operation
from dormice.api.http.replies import json_reply
from dormice.api.machines.parameters import idempotency_key
from dormice.api.services import Services

_OF_MACHINE = "/v1/machines/{machine_id}/autoresizing"
_OF_ORGANIZATION = "/v1/organization/autoresizing"


class AutoresizingRecord(Struct, kw_only=True):
    """Whether memory may be raised by itself."""

    enabled: bool


class UpdateAutoresizingRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """What is to hold from now on."""

    enabled: bool


_UPDATE = BodyDecoder(UpdateAutoresizingRequest)


class AutoresizingRoutes:
    """Handlers over the services of machines and of autoresizing."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def get(self, call: Call) -> ASGIApp:
        """GET /v1/machines/{machine_id}/autoresizing."""
        machine = await self._services.machines.get(call.caller, call.path["machine_id"])
        return json_reply(AutoresizingRecord(enabled=machine.autoresizing))

    async def put(self, call: Call) -> ASGIApp:
        """PUT /v1/machines/{machine_id}/autoresizing."""
        body = _UPDATE.decode(call.header("Content-Type"), await call.body())
        machine = await self._services.machines.set_autoresizing(
            call.caller, call.path["machine_id"], enabled=body.enabled, idempotency=call.idempotency(body)
        )
        return json_reply(AutoresizingRecord(enabled=machine.autoresizing))

    async def policy(self, call: Call) -> ASGIApp:
        """GET /v1/organization/autoresizing."""
        return json_reply(AutoresizingRecord(enabled=await self._services.autoresizing.policy(call.caller)))

    async def set_policy(self, call: Call) -> ASGIApp:
        """PUT /v1/organization/autoresizing."""
        body = _UPDATE.decode(call.header("Content-Type"), await call.body())
        enabled = await self._services.autoresizing.set_policy(call.caller, enabled=body.enabled)
        return json_reply(AutoresizingRecord(enabled=enabled))

    def operations(self) -> list[Operation]:
        """Return the routes."""
        key = idempotency_key(self._services.limits, required=False)
        setting = {200: Answer("The setting.", AutoresizingRecord)}
        return [
            Operation(
                id="getMachineAutoresizing",
                method="GET",
                path=_OF_MACHINE,
                tag="machines",
                summary="Whether a machine's memory is raised when it is short",
                handle=self.get,
                answers=setting,
            ),
            Operation(
                id="putMachineAutoresizing",
                method="PUT",
                path=_OF_MACHINE,
                tag="machines",
                summary="Have a machine's memory raised when it is short, or not",
                description=(
                    "Off for a new machine. A step is half of what the machine has (`autoresizing_step_mib` at most), up to "
                    "`autoresizing_memory_mib` and the host's memory. What was raised stays so until somebody changes it."
                ),
                handle=self.put,
                parameters=(key,),
                body=UpdateAutoresizingRequest,
                answers=setting,
                errors=frozenset({409}),
            ),
            Operation(
                id="getOrganizationAutoresizing",
                method="GET",
                path=_OF_ORGANIZATION,
                tag="machines",
                summary="Whether the organization lets machines be given more memory",
                handle=self.policy,
                answers=setting,
            ),
            Operation(
                id="putOrganizationAutoresizing",
                method="PUT",
                path=_OF_ORGANIZATION,
                tag="machines",
                summary="Let machines of the organization be given more memory, or not",
                description="On at first. Turned off, no machine is given more; what machines have they keep.",
                handle=self.set_policy,
                body=UpdateAutoresizingRequest,
                answers=setting,
            ),
        ]
