"""What owners of webhooks may ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dormice.crash_points import CrashPoint, reached
from dormice.domain.errors import Conflict, NotFound
from dormice.domain.execution import Micros
from dormice.domain.limits import Limits
from dormice.domain.webhook import SECRET_BYTES, Delivery, Webhook, secret_of
from dormice.engine.clock import Clock, new_id
from dormice.engine.feed import Feed
from dormice.engine.idempotency import InFlight, reused
from dormice.engine.orders import Caller, Idempotency
from dormice.engine.tasks import Tasks
from dormice.engine.webhooks.delivering import WebhookNews, key_of
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed
from dormice.store.webhooks import NewWebhook, TooManyWebhooks, WebhookChange, WebhookStore

_HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookOrder:
    """A webhook to be made."""

    url: str
    events: tuple[str, ...]
    enabled: bool = True


class Webhooks:
    """Webhooks of the caller's organization. Raises NotFound, Conflict, Invalid, StoreUnavailable."""

    def __init__(
        self,
        *,
        store: WebhookStore,
        news: WebhookNews,
        feed: Feed,
        in_flight: InFlight,
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
        check_url: Callable[[str], None],
    ) -> None:
        """`check_url` raises Invalid for a URL that is never called."""
        self._store = store
        self._news = news
        self._feed = feed
        self._in_flight = in_flight
        self._tasks = tasks
        self._clock = clock
        self._limits = limits
        self._check_url = check_url

    async def create(self, caller: Caller, order: WebhookOrder, idempotency: Idempotency | None) -> tuple[Webhook, str]:
        """Record a webhook. Its secret is returned here only; a repeated request returns the one that it has by then."""
        self._check_url(order.url)
        new = NewWebhook(
            id=f"wh-{new_id(self._clock)}",
            organization_id=caller.organization_id,
            url=order.url,
            events=order.events,
            enabled=order.enabled,
            secret=secret_of(self._clock.random(SECRET_BYTES)),
            now=self._clock.now(),
        )
        claim = await self._in_flight.claim(caller, idempotency)
        return await self._tasks.finish(self._create(new, claim))

    async def _create(self, new: NewWebhook, claim: IdempotencyClaim | None) -> tuple[Webhook, str]:
        most = self._limits.webhooks_per_organization
        try:
            made = await self._store.create(new, claim, most=most)
        finally:
            self._in_flight.settle(claim)
        reached(CrashPoint.WEBHOOK_CREATED)
        match made:
            case Webhook():
                return made, new.secret
            case TooManyWebhooks():
                raise Conflict(
                    f"an organization may have at most {most} webhooks (webhooks_per_organization): delete some",
                    code="QUOTA_EXCEEDED",
                )
            case Replayed(resource_id=webhook_id):
                earlier = await self._store.with_secret(new.organization_id, webhook_id)
                if earlier is None:
                    raise NotFound("no such webhook")
                return earlier
            case KeyReused():
                raise reused(made)

    async def get(self, caller: Caller, webhook_id: str) -> Webhook:
        """Return a webhook."""
        return _found(await self._store.get(caller.organization_id, webhook_id))

    async def patch(self, caller: Caller, webhook_id: str, change: WebhookChange) -> Webhook:
        """Change what is given; what is pending is tried at once."""
        if change.url is not None:
            self._check_url(change.url)
        changed = _found(await self._store.change(caller.organization_id, webhook_id, change))
        self._news.hint()
        return changed

    async def delete(self, caller: Caller, webhook_id: str) -> Webhook:
        """Forget it: nothing more is sent."""
        return _found(await self._store.delete(caller.organization_id, webhook_id))

    async def rotate(self, caller: Caller, webhook_id: str) -> tuple[Webhook, str]:
        """Give it another secret, which is returned once; the one before it counts for a while."""
        secret = secret_of(self._clock.random(SECRET_BYTES))
        until = self._now() + self._limits.webhook_secret_overlap_hours * _HOUR_US
        rotated = await self._store.rotate(caller.organization_id, webhook_id, secret, until=until)
        return _found(rotated), secret

    async def deliveries(self, caller: Caller, webhook_id: str, *, before: int | None, limit: int) -> list[Delivery]:
        """Newest first, numbers below `before`."""
        await self.get(caller, webhook_id)
        return await self._store.deliveries(caller.organization_id, webhook_id, before=before, limit=limit)

    async def redeliver(self, caller: Caller, webhook_id: str, event_id: str, *, wait_ms: int = 0) -> Delivery:
        """Send an event again, whatever became of it; with wait_ms, return after an attempt, or when that time is over."""
        delivery = await self._store.redeliver(
            caller.organization_id, webhook_id, event_id, _enabled(await self.get(caller, webhook_id), self._now())
        )
        if delivery is None:
            raise NotFound("no such delivery")
        return await self._attempted(caller, delivery, wait_ms)

    async def test(self, caller: Caller, webhook_id: str, *, wait_ms: int = 0) -> Delivery:
        """Send a test event; wait_ms as in `redeliver`."""
        webhook = await self.get(caller, webhook_id)
        now = _enabled(webhook, self._now())
        delivery = await self._store.add_test(webhook, f"evt-{new_id(self._clock)}", now)
        if delivery is None:
            raise NotFound("no such webhook")
        return await self._attempted(caller, delivery, wait_ms)

    async def list(self, caller: Caller) -> list[Webhook]:
        """Return them, oldest first."""
        return await self._store.of(caller.organization_id)

    async def _attempted(self, caller: Caller, delivery: Delivery, wait_ms: int) -> Delivery:
        """Return a delivery once it has been attempted again."""

        async def reread(present: Delivery) -> Delivery:
            found = await self._store.delivery(caller.organization_id, present.webhook_id, present.event_id)
            if found is None:
                raise NotFound("no such delivery")
            return found

        self._news.hint()
        return await self._feed.until(
            key_of(delivery),
            delivery,
            wait_ms,
            clock=self._clock,
            reread=reread,
            enough=lambda one: one.attempts > delivery.attempts,
        )

    def _now(self) -> Micros:
        return max(self._clock.now(), self._clock.steady())


def _found(webhook: Webhook | None) -> Webhook:
    if webhook is None:
        raise NotFound("no such webhook")
    return webhook


def _enabled(webhook: Webhook, now: Micros) -> Micros:
    if not webhook.enabled:
        raise Conflict("the webhook is disabled, so nothing is sent to it: enable it first")
    return now
