"""Webhooks on the wire: records, and the documents that they are sent."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from dormice.api.machines import wire as machines
from dormice.api.machines.wire import Time, time
from dormice.domain.execution import Execution
from dormice.domain.limits import Limits
from dormice.domain.machine import Machine
from dormice.domain.webhook import Delivery, DeliveryState, EventType, Webhook


class WebhookRecord(Struct, omit_defaults=True, kw_only=True):
    """A URL that is told of events."""

    webhook_id: str
    url: str
    events: list[str]
    enabled: Annotated[bool, Meta(description="Whether anything is sent and recorded for it.")]
    created_at: Time
    failing_since: Annotated[Time | None, Meta(description="Every attempt since then has failed.")] = None
    disabled_reason: Annotated[str | None, Meta(description="Why the server has disabled it.")] = None
    secret: Annotated[
        str | None, Meta(description="What deliveries are signed with: only in the answer that made it.")
    ] = None


class WebhookList(Struct, kw_only=True):
    """Webhooks, oldest first."""

    items: list[WebhookRecord]


class DeliveryRecord(Struct, omit_defaults=True, kw_only=True):
    """One event on its way to a webhook."""

    webhook_id: str
    event_id: Annotated[str, Meta(description="The header `webhook-id`: the same at every attempt.")]
    type: EventType
    status: DeliveryState
    created_at: Annotated[Time, Meta(description="When it happened.")]
    attempts: int
    machine_id: str | None = None
    execution_id: str | None = None
    last_attempt_at: Time | None = None
    last_status_code: Annotated[int | None, Meta(description="What the endpoint answered to the last attempt.")] = None
    last_error: Annotated[str | None, Meta(description="Why the last attempt failed.")] = None
    next_attempt_at: Annotated[Time | None, Meta(description="When it is sent again, while it is pending.")] = None
    completed_at: Annotated[Time | None, Meta(description="When it was delivered or given up.")] = None


class DeliveryPage(Struct, omit_defaults=True, kw_only=True):
    """Deliveries of a webhook, newest first."""

    items: list[DeliveryRecord]
    next_cursor: str | None = None


class EventDocument(Struct, omit_defaults=True, kw_only=True):
    """The body of a request to a webhook."""

    type: EventType
    timestamp: Annotated[Time, Meta(description="When it happened.")]
    data: Any


class _WithoutCommand(machines.ExecutionRecord, omit_defaults=True, kw_only=True):
    """An execution's record whose command is too long to be sent."""

    command: UnsetType = UNSET  # type: ignore[assignment] # the one field that is left out


def webhook(w: Webhook, secret: str | None = None) -> WebhookRecord:
    """Return a webhook's record."""
    return WebhookRecord(
        webhook_id=w.id,
        url=w.url,
        events=list(w.events),
        enabled=w.enabled,
        created_at=time(w.created_at),
        failing_since=None if w.failing_since is None else time(w.failing_since),
        disabled_reason=w.disabled_reason,
        secret=secret,
    )


def delivery(d: Delivery) -> DeliveryRecord:
    """Return a delivery's record."""
    again = d.state is DeliveryState.PENDING and d.attempts > 0
    return DeliveryRecord(
        webhook_id=d.webhook_id,
        event_id=d.event_id,
        type=d.type,
        status=d.state,
        created_at=time(d.at),
        attempts=d.attempts,
        machine_id=d.machine_id,
        execution_id=d.execution_id,
        last_attempt_at=None if d.last_attempt_at is None else time(d.last_attempt_at),
        last_status_code=d.last_status,
        last_error=d.last_error,
        next_attempt_at=time(d.next_at) if again else None,
        completed_at=None if d.ended_at is None else time(d.ended_at),
    )


def document(d: Delivery, subject: Execution | Machine | None, limits: Limits) -> bytes:
    """Return what a webhook is sent: the record as the API shows it, without the command where that is too long."""
    if isinstance(subject, Execution):
        record = machines.execution(subject, limits)
        encoded = _document(d, record)
        if len(encoded) <= limits.webhook_payload_bytes:
            return encoded
        fields = {name: getattr(record, name) for name in record.__struct_fields__ if name != "command"}
        return _document(d, _WithoutCommand(**fields))
    return _document(d, {"webhook_id": d.webhook_id} if subject is None else machines.machine(subject))


def _document(d: Delivery, data: object) -> bytes:
    return msgspec.json.encode(EventDocument(type=d.type, timestamp=time(d.at), data=data))
