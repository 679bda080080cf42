# Generated from _async/webhooks.py by scripts/generate_sync_client.py; change that and run it again.
"""`client.webhooks`: URLs that are told of what happens."""

from __future__ import annotations

from collections.abc import Sequence

from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client._sync.pagination import Page, paginate
from dormice.client.records import NewWebhook, Webhook, WebhookDelivery, decode
from dormice.client.transport import Timeout


class Webhooks:
    """Webhooks of the organization.

    Events are `execution.succeeded`, `.failed`, `.cancelled`, `.expired` (all: `execution.finished`), and `machine.running`,
    `.sleeping`, `.failed`, `.destroyed` (all: `machine.changed`). Requests are signed as Standard Webhooks says.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self,
        url: str,
        *,
        events: Sequence[str] | None = None,
        enabled: bool | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> NewWebhook:
        """Make a webhook; what its requests are signed with is in `secret` and is shown this once.

        Args:
            url: Where events are sent to.
            events: Which ones; default: all.
            enabled: Whether anything is sent to it; default: yes.
            idempotency_key: The same key with the same arguments gives the same webhook and its secret. Made up if left out.
            timeout: Seconds to wait for the server.

        """
        body = {"url": url, "events": None if events is None else list(events), "enabled": enabled}
        reply = self._connection.call(
            "POST", routes.WEBHOOKS, body=body, idempotency_key=idempotency_key, timeout=timeout
        )
        return decode(reply.content, NewWebhook)

    def retrieve(self, webhook_id: str, *, timeout: float | Timeout | None = None) -> Webhook:
        """The webhook as it is now."""
        reply = self._connection.call("GET", routes.webhook(webhook_id), timeout=timeout)
        return decode(reply.content, Webhook)

    def update(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        enabled: bool | None = None,
        timeout: float | Timeout | None = None,
    ) -> Webhook:
        """Change what is given, keep the rest. What is pending is tried at once."""
        body = {"url": url, "events": None if events is None else list(events), "enabled": enabled}
        reply = self._connection.call("PATCH", routes.webhook(webhook_id), body=body, timeout=timeout)
        return decode(reply.content, Webhook)

    def delete(self, webhook_id: str, *, timeout: float | Timeout | None = None) -> Webhook:
        """Delete it, and what is pending for it."""
        reply = self._connection.call("DELETE", routes.webhook(webhook_id), timeout=timeout)
        return decode(reply.content, Webhook)

    def rotate_secret(self, webhook_id: str, *, timeout: float | Timeout | None = None) -> NewWebhook:
        """Give it another secret, shown this once. For a day requests are signed with the one before it, too."""
        reply = self._connection.call("POST", f"{routes.webhook(webhook_id)}/rotate-secret", timeout=timeout)
        return decode(reply.content, NewWebhook)

    def test(
        self, webhook_id: str, *, wait_ms: int | None = None, timeout: float | Timeout | None = None
    ) -> WebhookDelivery:
        """Send a test event; with `wait_ms` (0 to 55,000), answer once it has been attempted."""
        path = f"{routes.webhook(webhook_id)}/test"
        reply = self._connection.call("POST", path, query={"wait_ms": wait_ms}, timeout=timeout)
        return decode(reply.content, WebhookDelivery)

    def redeliver(
        self, webhook_id: str, event_id: str, *, wait_ms: int | None = None, timeout: float | Timeout | None = None
    ) -> WebhookDelivery:
        """Send an event again, whatever became of it; `wait_ms` as in `test`."""
        path = f"{routes.delivery(webhook_id, event_id)}/redeliver"
        reply = self._connection.call("POST", path, query={"wait_ms": wait_ms}, timeout=timeout)
        return decode(reply.content, WebhookDelivery)

    def deliveries(
        self, webhook_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> Page[WebhookDelivery]:
        """What was sent to it, or is to be sent, newest first, `limit` to a page."""
        path = f"{routes.webhook(webhook_id)}/deliveries"
        return paginate(self._connection, WebhookDelivery, path, limit=limit, cursor=cursor)

    def list(self) -> Page[Webhook]:
        """All webhooks of the organization, oldest first, without their secrets."""
        return paginate(self._connection, Webhook, routes.WEBHOOKS)
