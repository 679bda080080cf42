"""Routes of previews, and the same under the name of ports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Answer, Operation
from dormice.api.http.pagination import list_page
from dormice.api.http.replies import Reply, json_reply
from dormice.api.machines.parameters import idempotency_key, paging, wait_ms
from dormice.api.machines.wire import time
from dormice.api.previews import wire
from dormice.api.previews.headers import TOKEN
from dormice.api.services import PreviewServices, Services
from dormice.domain.limits import Limits
from dormice.domain.preview import Preview, PreviewProtocol, Visibility
from dormice.engine.orders import PreviewOrder

_CREATE = BodyDecoder(wire.CreatePreviewRequest)
_CREATE_PORT = BodyDecoder(wire.CreatePortRequest)
_LINK = BodyDecoder(wire.CreateLinkRequest)
_PREVIEWS = "/v1/machines/{machine_id}/previews"
_PORTS = "/v1/machines/{machine_id}/ports"
_LINK_SECONDS = 3_600
Record = Callable[[Preview, str, Limits], msgspec.Struct]


class PreviewRoutes:
    """Handlers over the previews service."""

    def __init__(self, services: Services, previews: PreviewServices) -> None:
        self._limits = services.limits
        self._services = previews

    async def create(self, call: Call) -> ASGIApp:
        """POST /v1/machines/{machine_id}/previews."""
        body = _CREATE.decode(call.header("Content-Type"), await call.body())
        order = PreviewOrder(
            port=body.port,
            protocol=body.protocol or PreviewProtocol.HTTP,
            visibility=body.visibility or Visibility.PRIVATE,
            lifetime_seconds=body.expires_in_seconds,
        )
        return await self._create(call, body, order, wire.preview)

    async def create_port(self, call: Call) -> ASGIApp:
        """POST /v1/machines/{machine_id}/ports."""
        body = _CREATE_PORT.decode(call.header("Content-Type"), await call.body())
        order = PreviewOrder(port=body.port, protocol=body.protocol or PreviewProtocol.HTTP)
        return await self._create(call, body, order, wire.port)

    async def _create(self, call: Call, body: msgspec.Struct, order: PreviewOrder, record: Record) -> Reply:
        made = await self._services.previews.create(
            call.caller,
            call.path["machine_id"],
            order,
            call.idempotency(body, required=True),
            wait_ms=call.wait_ms(),
        )
        return json_reply(record(made, self._url(call, made), self._limits))

    async def page(self, call: Call) -> ASGIApp:
        """GET /v1/machines/{machine_id}/previews."""
        records, cursor = await list_page(
            call,
            self._limits.page_default,
            self._read(call),
            lambda preview: wire.preview(preview, self._url(call, preview), self._limits),
        )
        return json_reply(wire.PreviewPage(items=records, next_cursor=cursor))

    async def page_of_ports(self, call: Call) -> ASGIApp:
        """GET /v1/machines/{machine_id}/ports."""
        records, cursor = await list_page(
            call,
            self._limits.page_default,
            self._read(call),
            lambda preview: wire.port(preview, self._url(call, preview), self._limits),
        )
        return json_reply(wire.PortPage(items=records, next_cursor=cursor))

    def _read(self, call: Call) -> Callable[[int | None, int], Awaitable[list[Preview]]]:
        async def read(before: int | None, limit: int) -> list[Preview]:
            return await self._services.previews.page(call.caller, call.path["machine_id"], before=before, limit=limit)

        return read

    async def get(self, call: Call) -> ASGIApp:
        """GET /v1/machines/{machine_id}/previews/{preview_id}."""
        return self._answer(call, await self._get(call, "preview_id"), wire.preview)

    async def get_port(self, call: Call) -> ASGIApp:
        """GET /v1/machines/{machine_id}/ports/{port_id}."""
        return self._answer(call, await self._get(call, "port_id"), wire.port)

    async def _get(self, call: Call, name: str) -> Preview:
        return await self._services.previews.get(
            call.caller, call.path["machine_id"], call.path[name], wait_ms=call.wait_ms()
        )

    async def delete(self, call: Call) -> ASGIApp:
        """DELETE /v1/machines/{machine_id}/previews/{preview_id}."""
        return self._answer(call, await self._close(call, "preview_id"), wire.preview)

    async def delete_port(self, call: Call) -> ASGIApp:
        """DELETE /v1/machines/{machine_id}/ports/{port_id}."""
        return self._answer(call, await self._close(call, "port_id"), wire.port)

    async def _close(self, call: Call, name: str) -> Preview:
        return await self._services.previews.close(call.caller, call.path["machine_id"], call.path[name])

    async def link(self, call: Call) -> ASGIApp:
        """POST /v1/machines/{machine_id}/previews/{preview_id}/links."""
        raw = await call.body()
        body = _LINK.decode(call.header("Content-Type") if raw else None, raw or b"{}")
        seconds = _LINK_SECONDS if body.expires_in_seconds is None else body.expires_in_seconds
        preview, token, expires_at = await self._services.previews.link(
            call.caller, call.path["machine_id"], call.path["preview_id"], seconds
        )
        url = f"{self._url(call, preview)}?{TOKEN}={token}"
        return json_reply(wire.LinkRecord(url=url, expires_at=time(expires_at)), headers={"cache-control": "no-store"})

    def _answer(self, call: Call, preview: Preview, record: Record) -> Reply:
        return json_reply(record(preview, self._url(call, preview), self._limits))

    def _url(self, call: Call, preview: Preview) -> str:
        return self._services.addresses.url(preview.id, call.scope["scheme"], call.header("Host") or "localhost")

    def operations(self) -> list[Operation]:
        """Return the routes."""
        limits = self._limits
        wait = wait_ms(limits, "its machine is awake, or could not be woken")
        required, key = idempotency_key(limits, required=True), idempotency_key(limits, required=False)
        pages, conflict = paging(limits.page_default, limits), frozenset({409})
        one = {200: Answer("The preview.", wire.PreviewRecord)}
        one_port = {200: Answer("The port.", wire.PortRecord)}
        return [
            Operation(
                id="listPreviews",
                method="GET",
                path=_PREVIEWS,
                tag="previews",
                summary="List a machine's previews, newest first",
                handle=self.page,
                parameters=pages,
                answers={200: Answer("A page of previews.", wire.PreviewPage)},
            ),
            Operation(
                id="createPreview",
                method="POST",
                path=_PREVIEWS,
                tag="previews",
                summary="Serve a port of a machine",
                description=(
                    "A sleeping machine is woken, now and whenever somebody opens `url`. What came of a preview whose status is "
                    "`wake_in_progress` is asked for after `retry_after_ms`."
                ),
                handle=self.create,
                parameters=(required, wait),
                body=wire.CreatePreviewRequest,
                answers=one,
                errors=conflict,
            ),
            Operation(
                id="getPreview",
                method="GET",
                path=f"{_PREVIEWS}/{{preview_id}}",
                tag="previews",
                summary="Get a preview",
                handle=self.get,
                parameters=(wait,),
                answers=one,
            ),
            Operation(
                id="deletePreview",
                method="DELETE",
                path=f"{_PREVIEWS}/{{preview_id}}",
                tag="previews",
                summary="Serve a port no longer, and cut what is open through it",
                description="One that has ended is answered unchanged.",
                handle=self.delete,
                parameters=(key,),
                answers=one,
            ),
            Operation(
                id="createPreviewLink",
                method="POST",
                path=f"{_PREVIEWS}/{{preview_id}}/links",
                tag="previews",
                summary="Make a signed link to a preview",
                description=(
                    "Whoever opens it is let in until it expires, without a key. A `private` preview takes links of the key that made it "
                    "only. Revoking the key ends the links that it made."
                ),
                handle=self.link,
                body=wire.CreateLinkRequest,
                body_required=False,
                answers={200: Answer("The link.", wire.LinkRecord)},
                errors=conflict,
            ),
            Operation(
                id="listPorts",
                method="GET",
                path=_PORTS,
                tag="previews",
                summary="List a machine's previews as ports",
                handle=self.page_of_ports,
                parameters=pages,
                answers={200: Answer("A page of ports.", wire.PortPage)},
            ),
            Operation(
                id="createPort",
                method="POST",
                path=_PORTS,
                tag="previews",
                summary="Serve a port of a machine as a private preview",
                handle=self.create_port,
                parameters=(required, wait),
                body=wire.CreatePortRequest,
                answers=one_port,
                errors=conflict,
            ),
            Operation(
                id="getPort",
                method="GET",
                path=f"{_PORTS}/{{port_id}}",
                tag="previews",
                summary="Get a preview as a port",
                handle=self.get_port,
                parameters=(wait,),
                answers=one_port,
            ),
            Operation(
                id="deletePort",
                method="DELETE",
                path=f"{_PORTS}/{{port_id}}",
                tag="previews",
                summary="Serve a port no longer",
                handle=self.delete_port,
                parameters=(key,),
                answers=one_port,
            ),
        ]
