"""Routes of snapshots and forks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.errors import Fault, InvalidRequest
from dormice.api.http.operation import Answer, Operation
from dormice.api.http.pagination import list_page
from dormice.api.http.replies import Reply, json_reply
from dormice.api.machines import wire
from dormice.api.machines.machines import CHANGED, changed
from dormice.api.machines.orders import ForkRequest, fork_order
from dormice.api.machines.parameters import idempotency_key, paging, wait_ms
from dormice.api.services import Services
from dormice.domain.execution import Micros
from dormice.domain.snapshot import Snapshot, SnapshotState

_PATH = "/v1/snapshots/{snapshot_id}"
_OF_MACHINE = "/v1/machines/{machine_id}/snapshots"
_CHANGED_STATES = (SnapshotState.CREATING, SnapshotState.DELETING)


class CreateSnapshotRequest(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A snapshot to be made."""

    name: Annotated[str | None, Meta(description="What to call it; need not be unique.")] = None


class SnapshotRecord(Struct, omit_defaults=True, kw_only=True):
    """A copy of a machine's disk."""

    snapshot_id: str
    machine_id: str
    name: str
    status: SnapshotState
    storage_gib: int
    image: str
    created_at: wire.Time
    storage_bytes: int
    error: str | None = None


class SnapshotPage(Struct, omit_defaults=True, kw_only=True):
    """Snapshots, newest first."""

    items: list[SnapshotRecord]
    next_cursor: str | None = None


_CREATE = BodyDecoder(CreateSnapshotRequest)
_FORK = BodyDecoder(ForkRequest)
_ANSWERS: Mapping[int, Answer] = {
    200: Answer("Done.", SnapshotRecord),
    202: Answer("Accepted: it is still being made, or deleted.", SnapshotRecord),
}


def record(snapshot: Snapshot) -> SnapshotRecord:
    """Return a snapshot's record."""
    created: Micros = snapshot.created_at
    return SnapshotRecord(
        snapshot_id=snapshot.id,
        machine_id=snapshot.machine_id,
        name=snapshot.name,
        status=snapshot.state,
        storage_gib=snapshot.storage_gib,
        image=snapshot.image,
        created_at=wire.time(created),
        storage_bytes=snapshot.bytes,
        error=snapshot.error,
    )


class SnapshotRoutes:
    """Handlers over the snapshots service."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._machines = services.machines
        self._snapshots = services.snapshots

    async def create(self, call: Call) -> ASGIApp:
        """POST /v1/machines/{machine_id}/snapshots."""
        wait = call.wait_ms()
        call.idempotency(None, required=True)
        raw = await call.body()
        body = _CREATE.decode(call.header("Content-Type") if raw else None, raw or b"{}")
        name, most = body.name or "", self._services.limits.name_chars
        if len(name) > most or not name.isprintable():
            raise InvalidRequest([Fault(f"name must be at most {most} printable characters (name_chars)", "body.name")])
        machine = await self._machines.get(call.caller, call.path["machine_id"])
        idempotency = call.idempotency(body, required=True)
        return _reply(await self._snapshots.create(call.caller, machine, name, idempotency, wait_ms=wait))

    async def page(self, call: Call) -> ASGIApp:
        """GET /v1/snapshots."""
        return await self._page(call, None)

    async def page_of_machine(self, call: Call) -> ASGIApp:
        """GET /v1/machines/{machine_id}/snapshots."""
        machine = await self._machines.get(call.caller, call.path["machine_id"])
        return await self._page(call, machine.id)

    async def _page(self, call: Call, machine_id: str | None) -> ASGIApp:
        async def read(before: int | None, limit: int) -> list[Snapshot]:
            return await self._snapshots.page(call.caller, machine_id, before=before, limit=limit)

        records, cursor = await list_page(call, self._services.limits.page_default, read, record)
        return json_reply(SnapshotPage(items=records, next_cursor=cursor))

    async def get(self, call: Call) -> ASGIApp:
        """GET /v1/snapshots/{snapshot_id}."""
        found = await self._snapshots.get(call.caller, call.path["snapshot_id"], wait_ms=call.wait_ms())
        return json_reply(record(found))

    async def delete(self, call: Call) -> ASGIApp:
        """DELETE /v1/snapshots/{snapshot_id}."""
        return _reply(await self._snapshots.delete(call.caller, call.path["snapshot_id"], wait_ms=call.wait_ms()))

    async def fork(self, call: Call) -> ASGIApp:
        """POST /v1/machines/{machine_id}/fork."""
        wait = call.wait_ms()
        call.idempotency(None, required=True)
        raw = await call.body()
        body = _FORK.decode(call.header("Content-Type") if raw else None, raw or b"{}")
        order = fork_order(body, self._services.limits)
        idempotency = call.idempotency(body, required=True)
        return changed(
            await self._machines.fork(call.caller, call.path["machine_id"], order, idempotency, wait_ms=wait)
        )

    def operations(self) -> list[Operation]:
        """Return the routes."""
        limits = self._services.limits
        wait, key = wait_ms(limits, "it is done or has failed"), idempotency_key(limits, required=True)
        pages = paging(limits.page_default, limits)
        conflict = frozenset({409})
        return [
            Operation(
                id="createSnapshot",
                method="POST",
                path=_OF_MACHINE,
                tag="snapshots",
                summary="Keep a copy of a machine's disk",
                description=(
                    "The machine may run: its writes wait while its disk is copied. The answer waits for the copy, 10 s or `wait_ms`. "
                    "A snapshot stays when its machine is deleted."
                ),
                handle=self.create,
                parameters=(key, wait),
                body=CreateSnapshotRequest,
                body_required=False,
                answers=_ANSWERS,
                errors=conflict,
            ),
            Operation(
                id="listMachineSnapshots",
                method="GET",
                path=_OF_MACHINE,
                tag="snapshots",
                summary="List the snapshots of a machine, newest first",
                handle=self.page_of_machine,
                parameters=pages,
                answers={200: Answer("A page of snapshots.", SnapshotPage)},
            ),
            Operation(
                id="listSnapshots",
                method="GET",
                path="/v1/snapshots",
                tag="snapshots",
                summary="List snapshots, newest first",
                handle=self.page,
                parameters=pages,
                answers={200: Answer("A page of snapshots.", SnapshotPage)},
            ),
            Operation(
                id="getSnapshot",
                method="GET",
                path=_PATH,
                tag="snapshots",
                summary="Get a snapshot",
                handle=self.get,
                parameters=(wait,),
                answers={200: Answer("The snapshot.", SnapshotRecord)},
            ),
            Operation(
                id="deleteSnapshot",
                method="DELETE",
                path=_PATH,
                tag="snapshots",
                summary="Delete a snapshot",
                description="Machines that were made from it keep what they have.",
                handle=self.delete,
                parameters=(wait,),
                answers=_ANSWERS,
                errors=conflict,
            ),
            Operation(
                id="forkMachine",
                method="POST",
                path="/v1/machines/{machine_id}/fork",
                tag="snapshots",
                summary="Make a machine from another one's present disk",
                description=(
                    "What the body leaves out is as in the machine that is copied. No process is copied. The answer waits for the copy "
                    "of the disk, 10 s at most: with `copied` false in it, the copy is yet to be made."
                ),
                handle=self.fork,
                parameters=(key, wait),
                body=ForkRequest,
                body_required=False,
                answers=CHANGED,
                errors=conflict,
            ),
        ]


def _reply(snapshot: Snapshot) -> Reply:
    return json_reply(record(snapshot), status=202 if snapshot.state in _CHANGED_STATES else 200)
