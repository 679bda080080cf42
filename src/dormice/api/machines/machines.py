"""Routes of machines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping

import msgspec

from dormice.api.http import sse
from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.etags import etag, wanted_revision
from dormice.api.http.operation import Answer, Operation
from dormice.api.http.pagination import list_page
from dormice.api.http.replies import Reply, json_reply
from dormice.api.machines import wire
from dormice.api.machines.orders import CreateMachineRequest, UpdateMachineRequest, machine_order, machine_patch
from dormice.api.machines.parameters import FORCE, IF_MATCH, idempotency_key, paging, wait_ms
from dormice.api.services import Services
from dormice.domain.machine import Machine, Phase
from dormice.engine.orders import Idempotency

_CREATE = BodyDecoder(CreateMachineRequest)
_UPDATE = BodyDecoder(UpdateMachineRequest)
_PATH = "/v1/machines/{machine_id}"
_AT_REST = "it has reached its desired state or has failed"
CHANGED: Mapping[int, Answer] = {
    200: Answer("Done: the machine is as desired.", wire.MachineRecord),
    202: Answer("Accepted: the machine is on its way.", wire.MachineRecord),
}


class MachineRoutes:
    """Handlers over the machines service."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._machines = services.machines

    async def create(self, call: Call) -> ASGIApp:
        """POST /v1/machines."""
        wait = call.wait_ms()
        call.idempotency(None, required=True)
        raw = await call.body()
        body = _CREATE.decode(call.header("Content-Type") if raw else None, raw or b"{}")
        order = machine_order(body, self._services.limits)
        made = await self._machines.create(call.caller, order, call.idempotency(body, required=True), wait_ms=wait)
        return changed(made)

    async def page(self, call: Call) -> ASGIApp:
        """GET /v1/machines."""

        async def read(before: int | None, limit: int) -> list[Machine]:
            return await self._machines.page(call.caller, before=before, limit=limit)

        records, cursor = await list_page(call, self._services.limits.page_default, read, wire.machine)
        return json_reply(wire.MachinePage(items=records, next_cursor=cursor))

    async def get(self, call: Call) -> ASGIApp:
        """GET /v1/machines/{machine_id}."""
        machine = await self._machines.get(call.caller, call.path["machine_id"], wait_ms=call.wait_ms())
        return _reply(machine, 200)

    async def patch(self, call: Call) -> ASGIApp:
        """PATCH /v1/machines/{machine_id}."""
        body = _UPDATE.decode(call.header("Content-Type"), await call.body())
        patched = await self._machines.patch(
            call.caller,
            call.path["machine_id"],
            machine_patch(body, self._services.limits),
            revision=_revision(call),
            idempotency=call.idempotency(body),
        )
        return changed(patched)

    async def destroy(self, call: Call) -> ASGIApp:
        """DELETE /v1/machines/{machine_id}."""
        wait, revision, idempotency = _steering(call)
        machine_id = call.path["machine_id"]
        return changed(
            await self._machines.destroy(
                call.caller, machine_id, revision=revision, idempotency=idempotency, wait_ms=wait
            )
        )

    async def sleep(self, call: Call) -> ASGIApp:
        """POST /v1/machines/{machine_id}/sleep."""
        wait, revision, idempotency = _steering(call)
        machine_id = call.path["machine_id"]
        return changed(
            await self._machines.sleep(
                call.caller, machine_id, revision=revision, idempotency=idempotency, wait_ms=wait
            )
        )

    async def wake(self, call: Call) -> ASGIApp:
        """POST /v1/machines/{machine_id}/wake."""
        wait, revision, idempotency = _steering(call)
        machine_id = call.path["machine_id"]
        return changed(
            await self._machines.wake(call.caller, machine_id, revision=revision, idempotency=idempotency, wait_ms=wait)
        )

    async def reboot(self, call: Call) -> ASGIApp:
        """POST /v1/machines/{machine_id}/reboot."""
        wait, revision, idempotency = _steering(call)
        rebooted = await self._machines.reboot(
            call.caller,
            call.path["machine_id"],
            force=call.boolean("force"),
            revision=revision,
            idempotency=idempotency,
            wait_ms=wait,
        )
        return changed(rebooted)

    async def watch(self, call: Call) -> ASGIApp:
        """GET /v1/machines/{machine_id}/status/stream."""
        changes = self._machines.changes(call.caller, call.path["machine_id"])
        # Unknown ids are told by status, as long as there still is one.
        first = await anext(changes)
        return sse.event_stream(_status_frames(first, changes))

    def operations(self) -> list[Operation]:
        """Return the routes."""
        limits = self._services.limits
        wait, key = wait_ms(limits, _AT_REST), idempotency_key(limits, required=False)
        one = {200: Answer("The machine.", wire.MachineRecord)}
        conflict = frozenset({409})
        return [
            Operation(
                id="listMachines",
                method="GET",
                path="/v1/machines",
                tag="machines",
                summary="List machines, newest first",
                handle=self.page,
                parameters=paging(limits.page_default, limits),
                answers={200: Answer("A page of machines.", wire.MachinePage)},
            ),
            Operation(
                id="createMachine",
                method="POST",
                path="/v1/machines",
                tag="machines",
                summary="Make a machine",
                description="What the body leaves out takes its default (`GET /v1/limits`).",
                handle=self.create,
                parameters=(idempotency_key(limits, required=True), wait),
                body=CreateMachineRequest,
                body_required=False,
                answers=CHANGED,
                errors=conflict,
            ),
            Operation(
                id="getMachine",
                method="GET",
                path=_PATH,
                tag="machines",
                summary="Get a machine",
                handle=self.get,
                parameters=(wait,),
                answers=one,
            ),
            Operation(
                id="patchMachine",
                method="PATCH",
                path=_PATH,
                tag="machines",
                summary="Change what a machine is made of",
                handle=self.patch,
                parameters=(IF_MATCH, key),
                body=UpdateMachineRequest,
                answers=CHANGED,
                errors=conflict,
            ),
            Operation(
                id="deleteMachine",
                method="DELETE",
                path=_PATH,
                tag="machines",
                summary="Destroy a machine and its disk",
                handle=self.destroy,
                parameters=(IF_MATCH, key, wait),
                answers=CHANGED,
                errors=conflict,
            ),
            Operation(
                id="sleepMachine",
                method="POST",
                path=f"{_PATH}/sleep",
                tag="machines",
                summary="Stop a machine's processes and keep its disk",
                handle=self.sleep,
                parameters=(IF_MATCH, key, wait),
                answers=CHANGED,
                errors=conflict,
            ),
            Operation(
                id="wakeMachine",
                method="POST",
                path=f"{_PATH}/wake",
                tag="machines",
                summary="Start a machine from its disk",
                handle=self.wake,
                parameters=(IF_MATCH, key, wait),
                answers=CHANGED,
                errors=conflict,
            ),
            Operation(
                id="rebootMachine",
                method="POST",
                path=f"{_PATH}/reboot",
                tag="machines",
                summary="Stop a machine's processes and start it again from its disk",
                handle=self.reboot,
                parameters=(IF_MATCH, key, FORCE, wait),
                answers=CHANGED,
                errors=conflict,
            ),
            Operation(
                id="watchMachineStatus",
                method="GET",
                path=f"{_PATH}/status/stream",
                tag="machines",
                summary="Follow a machine until it is as desired",
                description=(
                    "Server-sent events `status` with the machine as data and its revision as id: the present state at "
                    "once, then every change; the stream ends when the desired state is reached, or the machine has "
                    "failed. A comment every 15 s keeps it alive."
                ),
                handle=self.watch,
                answers={200: Answer("The events.", media_types=("text/event-stream",))},
            ),
        ]


def _revision(call: Call) -> str | None:
    return wanted_revision(call.header("If-Match"))


def _steering(call: Call) -> tuple[int, str | None, Idempotency | None]:
    return call.wait_ms(), _revision(call), call.idempotency(None)


def changed(machine: Machine) -> Reply:
    """Return the answer to a request that changes a machine, or makes one."""
    at_rest = machine.phase.value == machine.desired_state.value or machine.phase is Phase.FAILED
    return _reply(machine, 200 if at_rest else 202)


def _reply(machine: Machine, status: int) -> Reply:
    return json_reply(wire.machine(machine), status=status, headers={"etag": etag(machine.revision)})


async def _status_frames(first: Machine | None, changes: AsyncIterator[Machine | None]) -> AsyncGenerator[bytes, None]:
    try:
        yield _status_frame(first)
        async for machine in changes:
            yield _status_frame(machine)
    finally:
        if isinstance(changes, AsyncGenerator):
            await changes.aclose()


def _status_frame(machine: Machine | None) -> bytes:
    if machine is None:
        return sse.KEEP_ALIVE
    return sse.frame("status", msgspec.json.encode(wire.machine(machine)), identity=machine.revision)
