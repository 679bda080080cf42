"""Routes of API keys."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.errors import Fault, InvalidRequest
from dormice.api.http.operation import Answer, Operation
from dormice.api.http.replies import json_reply
from dormice.api.machines.wire import Time, time
from dormice.api.services import Services
from dormice.domain.limits import Limits
from dormice.store.interface import Key

_DEFAULT_NAME = "key"


class KeyRecord(Struct, omit_defaults=True, kw_only=True):
    """An API key, without its secret."""

    key_id: str
    organization_id: str
    organization: str
    name: str
    admin: bool
    prefix: str
    created_at: Time
    revoked_at: Time | None = None
    key: Annotated[str | None, Meta(description="The secret: only in the answer that made it.")] = None


class KeyList(Struct, kw_only=True):
    """API keys, oldest first."""

    items: list[KeyRecord]


class CreateKeyRequest(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A key to be made."""

    organization: Annotated[str | None, Meta(description="Made when missing; absent: the caller's own.")] = None
    name: Annotated[str | None, Meta(description="To tell keys apart.")] = None
    admin: Annotated[bool, Meta(description="Whether it sees and makes keys of every organization.")] = False


_CREATE = BodyDecoder(CreateKeyRequest)


class KeyRoutes:
    """Handlers over the keys service."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._keys = services.keys

    async def create(self, call: Call) -> ASGIApp:
        """POST /v1/keys."""
        raw = await call.body()
        body = _CREATE.decode(call.header("Content-Type") if raw else None, raw or b"{}")
        limits = self._services.limits
        if faults := [
            *_name_faults("organization", body.organization, limits),
            *_name_faults("name", body.name, limits),
        ]:
            raise InvalidRequest(faults)
        key, secret = await self._keys.create(
            call.caller,
            organization=body.organization,
            name=_DEFAULT_NAME if body.name is None else body.name,
            admin=body.admin,
        )
        record = _record(key)
        record.key = secret
        return json_reply(record, headers={"cache-control": "no-store"})

    async def page(self, call: Call) -> ASGIApp:
        """GET /v1/keys."""
        return json_reply(KeyList(items=[_record(key) for key in await self._keys.list(call.caller)]))

    async def revoke(self, call: Call) -> ASGIApp:
        """DELETE /v1/keys/{key_id}."""
        return json_reply(_record(await self._keys.revoke(call.caller, call.path["key_id"])))

    def operations(self) -> list[Operation]:
        """Return the routes."""
        return [
            Operation(
                id="listKeys",
                method="GET",
                path="/v1/keys",
                tag="keys",
                summary="List API keys",
                description="Those of the caller's organization; an admin key sees all.",
                handle=self.page,
                answers={200: Answer("The keys.", KeyList)},
            ),
            Operation(
                id="createKey",
                method="POST",
                path="/v1/keys",
                tag="keys",
                summary="Make an API key",
                description="For admin keys. The secret, `key`, is in this answer only.",
                handle=self.create,
                body=CreateKeyRequest,
                body_required=False,
                answers={200: Answer("The key, with its secret.", KeyRecord)},
                errors=frozenset({409}),
            ),
            Operation(
                id="revokeKey",
                method="DELETE",
                path="/v1/keys/{key_id}",
                tag="keys",
                summary="Revoke an API key",
                description=(
                    "For admin keys. Streams and connections that the key has opened end. A revoked one is answered unchanged."
                ),
                handle=self.revoke,
                answers={200: Answer("The key.", KeyRecord)},
                errors=frozenset({409}),
            ),
        ]


def _name_faults(field: str, text: str | None, limits: Limits) -> list[Fault]:
    if text is None or (0 < len(text) <= limits.name_chars and text.isprintable()):
        return []
    return [
        Fault(f"{field} must have from 1 to {limits.name_chars} printable characters (name_chars)", f"body.{field}")
    ]


def _record(key: Key) -> KeyRecord:
    return KeyRecord(
        key_id=key.id,
        organization_id=key.organization_id,
        organization=key.organization,
        name=key.name,
        admin=key.admin,
        prefix=key.prefix,
        created_at=time(key.created_at),
        revoked_at=None if key.revoked_at is None else time(key.revoked_at),
    )
