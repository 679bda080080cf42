"""The port of webhooks. What interface.py says of ports holds here.

That there is something to tell is recorded by the transaction in which it happens: the end of an execution and a change of a
machine's phase make a delivery for each enabled webhook of the organization that wants it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from dormice.domain.execution import Execution, Micros
from dormice.domain.machine import Machine
from dormice.domain.webhook import Delivery, DeliveryEvent, Webhook

if TYPE_CHECKING:
    from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """A webhook to be recorded. The secret is sealed before it reaches the file."""

    id: str
    organization_id: str
    url: str
    events: tuple[str, ...]
    enabled: bool
    secret: str = field(repr=False)
    now: Micros


@dataclass(frozen=True, slots=True)
class TooManyWebhooks:
    """The organization has as many as it may have; nothing was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookChange:
    """What its owner changes; None leaves it. Every change lets the server try at once again."""

    url: str | None = None
    events: tuple[str, ...] | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is to be sent, and what it tells of; None when that has been deleted meanwhile."""

    delivery: Delivery
    subject: Execution | Machine | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class DueOfWebhook:
    """What is to be sent to one webhook now."""

    webhook: Webhook
    secrets: tuple[str, ...] = field(repr=False)
    """The secret, and the one before it while that still counts."""
    due: Sequence[Due]


@dataclass(frozen=True, slots=True)
class Pending:
    """What is to be sent to all enabled webhooks together."""

    deliveries: int
    due_at: Micros | None
    """When the first of them is due; None when there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of sending a delivery."""

    delivery: Delivery
    """As it was when it was sent."""
    event: DeliveryEvent
    at: Micros
    status: int | None
    error: str | None
    next_at: Micros
    """When it is due again, if it is still pending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How a webhook does after some attempts."""

    failures: int
    failing_since: Micros | None
    resume_at: Micros
    disabled_reason: str | None = None
    """Set: it is disabled."""


class WebhookStore(Protocol):
    """Webhooks and their deliveries."""

    async def create(
        self, new: NewWebhook, claim: IdempotencyClaim | None, *, most: int
    ) -> Webhook | TooManyWebhooks | Replayed | KeyReused:
        """Record a webhook: one of at most `most` of its organization."""
        ...

    async def get(self, organization_id: str, webhook_id: str) -> Webhook | None:
        """Return a webhook of the organization."""
        ...

    async def with_secret(self, organization_id: str, webhook_id: str) -> tuple[Webhook, str] | None:
        """Return a webhook of the organization, and what its requests are signed with."""
        ...

    async def of(self, organization_id: str) -> list[Webhook]:
        """The webhooks of an organization, oldest first."""
        ...

    async def change(self, organization_id: str, webhook_id: str, change: WebhookChange) -> Webhook | None:
        """Change a webhook of the organization."""
        ...

    async def rotate(self, organization_id: str, webhook_id: str, secret: str, *, until: Micros) -> Webhook | None:
        """Give it another secret; the one that it had counts besides until that moment."""
        ...

    async def delete(self, organization_id: str, webhook_id: str) -> Webhook | None:
        """Forget a webhook and, by and by, its deliveries; return it as it was."""
        ...

    async def deliveries(
        self, organization_id: str, webhook_id: str, *, before: int | None, limit: int
    ) -> list[Delivery]:
        """Deliveries of a webhook of the organization, newest first, numbers below `before`."""
        ...

    async def delivery(self, organization_id: str, webhook_id: str, event_id: str) -> Delivery | None:
        """Return one delivery of a webhook of the organization."""
        ...

    async def add_test(self, webhook: Webhook, event_id: str, now: Micros) -> Delivery | None:
        """Record a test event for the webhook; None when there is no such webhook any more."""
        ...

    async def redeliver(self, organization_id: str, webhook_id: str, event_id: str, now: Micros) -> Delivery | None:
        """Make a delivery of a webhook of the organization due at once, whatever became of it."""
        ...

    async def pending(self) -> Pending:
        """How much is to be sent to enabled webhooks, and since when."""
        ...

    async def due(self) -> Mapping[str, Micros]:
        """When the next delivery of each enabled webhook that has one is due, by webhook id."""
        ...

    async def due_of(self, webhook_id: str, now: Micros, *, limit: int) -> DueOfWebhook | None:
        """What is due of an enabled webhook: `limit` deliveries at most, one while it fails; None when nothing is."""
        ...

    async def attempted(self, webhook: Webhook, attempts: Sequence[Attempt], condition: Condition) -> None:
        """Record what came of attempts. Guards: a delivery is still as it was sent, the webhook has the same revision."""
        ...
