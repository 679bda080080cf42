"""Routes of webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.errors import Fault, InvalidRequest
from dormice.api.http.operation import Answer, Operation
from dormice.api.http.pagination import list_page
from dormice.api.http.replies import Reply, json_reply
from dormice.api.machines.parameters import idempotency_key, paging, wait_ms
from dormice.api.services import Services
from dormice.api.webhooks import wire
from dormice.domain.webhook import FAMILIES, SUBSCRIBABLE, Delivery, Webhook
from dormice.engine.webhooks.webhooks import WebhookOrder
from dormice.store.webhooks import WebhookChange

_EVENTS = f"Of {', '.join(f'`{word}`' for word in SUBSCRIBABLE)}."
_PATH = "/v1/webhooks/{webhook_id}"
_NOT_STORED = {"cache-control": "no-store"}


class CreateWebhookRequest(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A webhook to be made."""

    url: Annotated[
        str, Meta(description="Where events are sent to: http or https, an address that the server may call.")
    ]
    events: Annotated[list[str] | None, Meta(description=f"{_EVENTS} Absent: all.")] = None
    enabled: Annotated[bool, Meta(description="Whether anything is sent to it.")] = True


class UpdateWebhookRequest(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What of a webhook is to change."""

    url: str | None = None
    events: Annotated[list[str] | None, Meta(description=_EVENTS)] = None
    enabled: bool | None = None


_CREATE = BodyDecoder(CreateWebhookRequest)
_UPDATE = BodyDecoder(UpdateWebhookRequest)


class WebhookRoutes:
    """Handlers over the webhooks service."""

    def __init__(self, services: Services) -> None:
        self._webhooks = services.webhooks
        self._limits = services.limits

    async def create(self, call: Call) -> ASGIApp:
        """POST /v1/webhooks."""
        body = _CREATE.decode(call.header("Content-Type"), await call.body())
        events = tuple(FAMILIES) if body.events is None else _events(body.events)
        order = WebhookOrder(url=body.url, events=events, enabled=body.enabled)
        return _with_secret(*await self._webhooks.create(call.caller, order, call.idempotency(body)))

    async def page(self, call: Call) -> ASGIApp:
        """GET /v1/webhooks."""
        found = await self._webhooks.list(call.caller)
        return json_reply(wire.WebhookList(items=[wire.webhook(one) for one in found]))

    async def get(self, call: Call) -> ASGIApp:
        """GET /v1/webhooks/{webhook_id}."""
        return json_reply(wire.webhook(await self._webhooks.get(call.caller, call.path["webhook_id"])))

    async def patch(self, call: Call) -> ASGIApp:
        """PATCH /v1/webhooks/{webhook_id}."""
        body = _UPDATE.decode(call.header("Content-Type"), await call.body())
        change = WebhookChange(
            url=body.url, events=None if body.events is None else _events(body.events), enabled=body.enabled
        )
        return json_reply(wire.webhook(await self._webhooks.patch(call.caller, call.path["webhook_id"], change)))

    async def delete(self, call: Call) -> ASGIApp:
        """DELETE /v1/webhooks/{webhook_id}."""
        return json_reply(wire.webhook(await self._webhooks.delete(call.caller, call.path["webhook_id"])))

    async def rotate(self, call: Call) -> ASGIApp:
        """POST /v1/webhooks/{webhook_id}/rotate-secret."""
        return _with_secret(*await self._webhooks.rotate(call.caller, call.path["webhook_id"]))

    async def test(self, call: Call) -> ASGIApp:
        """POST /v1/webhooks/{webhook_id}/test."""
        sent = await self._webhooks.test(call.caller, call.path["webhook_id"], wait_ms=call.wait_ms())
        return json_reply(wire.delivery(sent))

    async def deliveries(self, call: Call) -> ASGIApp:
        """GET /v1/webhooks/{webhook_id}/deliveries."""

        async def read(before: int | None, limit: int) -> Sequence[Delivery]:
            return await self._webhooks.deliveries(call.caller, call.path["webhook_id"], before=before, limit=limit)

        records, cursor = await list_page(call, self._limits.page_default, read, wire.delivery)
        return json_reply(wire.DeliveryPage(items=records, next_cursor=cursor))

    async def redeliver(self, call: Call) -> ASGIApp:
        """POST /v1/webhooks/{webhook_id}/deliveries/{event_id}/redeliver."""
        webhook_id, event_id = call.path["webhook_id"], call.path["event_id"]
        sent = await self._webhooks.redeliver(call.caller, webhook_id, event_id, wait_ms=call.wait_ms())
        return json_reply(wire.delivery(sent))

    def operations(self) -> list[Operation]:
        """Return the routes."""
        one = {200: Answer("The webhook.", wire.WebhookRecord)}
        conflict = frozenset({409})
        return [
            Operation(
                id="listWebhooks",
                method="GET",
                path="/v1/webhooks",
                tag="webhooks",
                summary="List webhooks, oldest first",
                handle=self.page,
                answers={200: Answer("The webhooks.", wire.WebhookList)},
            ),
            Operation(
                id="createWebhook",
                method="POST",
                path="/v1/webhooks",
                tag="webhooks",
                summary="Make a webhook",
                description=(
                    "The secret is in this answer only, and again in that to a repeated request with the same Idempotency-Key. "
                    "Events that happen from now on are sent."
                ),
                handle=self.create,
                parameters=(idempotency_key(self._limits, required=False),),
                body=CreateWebhookRequest,
                answers={200: Answer("The webhook, with its secret.", wire.WebhookRecord)},
                errors=conflict,
            ),
            Operation(
                id="getWebhook",
                method="GET",
                path=_PATH,
                tag="webhooks",
                summary="Get a webhook",
                handle=self.get,
                answers=one,
            ),
            Operation(
                id="patchWebhook",
                method="PATCH",
                path=_PATH,
                tag="webhooks",
                summary="Change a webhook",
                description="What is pending is tried at once. While it is disabled, nothing is sent, and what happens is not recorded for it.",
                handle=self.patch,
                body=UpdateWebhookRequest,
                answers=one,
            ),
            Operation(
                id="deleteWebhook",
                method="DELETE",
                path=_PATH,
                tag="webhooks",
                summary="Delete a webhook and what is pending for it",
                handle=self.delete,
                answers={200: Answer("The webhook, as it was.", wire.WebhookRecord)},
            ),
            Operation(
                id="rotateWebhookSecret",
                method="POST",
                path=f"{_PATH}/rotate-secret",
                tag="webhooks",
                summary="Give a webhook another secret",
                description=(
                    "It is in this answer only. For `webhook_secret_overlap_hours` deliveries are signed with the one before it, too."
                ),
                handle=self.rotate,
                answers={200: Answer("The webhook, with its new secret.", wire.WebhookRecord)},
            ),
            Operation(
                id="testWebhook",
                method="POST",
                path=f"{_PATH}/test",
                tag="webhooks",
                summary="Send a test event, `webhook.test`",
                handle=self.test,
                parameters=(wait_ms(self._limits, "it has been attempted"),),
                answers={200: Answer("Its delivery.", wire.DeliveryRecord)},
                errors=conflict,
            ),
            Operation(
                id="listWebhookDeliveries",
                method="GET",
                path=f"{_PATH}/deliveries",
                tag="webhooks",
                summary="List what was sent to a webhook, or is to be sent, newest first",
                handle=self.deliveries,
                parameters=paging(self._limits.page_default, self._limits),
                answers={200: Answer("A page of deliveries.", wire.DeliveryPage)},
            ),
            Operation(
                id="redeliverWebhookEvent",
                method="POST",
                path=f"{_PATH}/deliveries/{{event_id}}/redeliver",
                tag="webhooks",
                summary="Send an event again, whatever became of it",
                handle=self.redeliver,
                parameters=(wait_ms(self._limits, "it has been attempted"),),
                answers={200: Answer("Its delivery.", wire.DeliveryRecord)},
                errors=conflict,
            ),
        ]


def _with_secret(webhook: Webhook, secret: str) -> Reply:
    return json_reply(wire.webhook(webhook, secret), headers=_NOT_STORED)


def _events(words: Sequence[str]) -> tuple[str, ...]:
    """Return each once, in their order. Raises Invalid."""
    faults = [
        Fault(f"events[{index}] is no event: give one of {', '.join(SUBSCRIBABLE)}", f"body.events[{index}]")
        for index, word in enumerate(words)
        if word not in SUBSCRIBABLE
    ]
    if not words:
        faults = [Fault(f"events must not be empty: give one of {', '.join(SUBSCRIBABLE)}", "body.events")]
    if faults:
        raise InvalidRequest(faults[:_MOST_FAULTS])
    return tuple(dict.fromkeys(words))


_MOST_FAULTS = 10
