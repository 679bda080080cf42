"""Delivering: every event to every webhook that is to be told, at least once, each webhook at its own pace.

What is to be sent is read from the store, a few deliveries at a time, and what came of it is committed before more is read: a crash
in between has them sent again. That something happened is a hint only; whoever hears none looks every few seconds. A webhook that
fails is asked with one delivery at a time and ever longer pauses, so it costs others nothing; nothing of it is kept in memory but
when it is due.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from typing import Final, Protocol

from dormice.crash_points import CrashPoint, reached
from dormice.domain.execution import Execution, Micros
from dormice.domain.limits import Limits
from dormice.domain.machine import Machine
from dormice.domain.webhook import Delivery, DeliveryEvent, EventType, Webhook, back_off, signatures
from dormice.engine.clock import Clock
from dormice.engine.feed import Feed
from dormice.engine.observer import Observer
from dormice.engine.tasks import Tasks
from dormice.outbound.interface import Answer, Sender
from dormice.store.webhooks import Attempt, Condition, Due, WebhookStore

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 0.02
"""Between two looks, however many hints there are."""
AT_ONCE: Final = 4
"""Deliveries under way to one webhook."""
WEBHOOKS_AT_ONCE: Final = 64
SHARE_SECONDS: Final = 1.0
"""After so long the next webhook has its turn."""
_RETRY_FACTOR: Final = 4
_LONGEST_RETRY_MS: Final = 3_600_000
_LONGEST_PAUSE_MS: Final = 300_000
_HOUR_US: Final = 3_600_000_000
_GONE: Final = 410
_DELETED: Final = "what it tells of has been deleted meanwhile"


class Describe(Protocol):
    """Puts an event into the words of the API."""

    def __call__(self, delivery: Delivery, subject: Execution | Machine | None) -> bytes:
        """Return the JSON document; `subject` is what something happened to, None for a test."""
        ...


class WebhookNews(Observer):
    """Hears that there may be something to deliver."""

    def __init__(self) -> None:
        self._heard = asyncio.Event()

    def hint(self) -> None:
        """Have somebody look."""
        self._heard.set()

    def finished(self, _execution: Execution) -> None:
        """Hear of an execution that has ended."""
        self.hint()

    def machine_moved(self, before: Machine, after: Machine) -> None:
        """Hear of a change of a machine."""
        if before.phase is not after.phase:
            self.hint()

    async def wait(self, seconds: float) -> None:
        """Wait for a hint, at most so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._heard.wait()
        except TimeoutError:
            pass
        self._heard.clear()


class Delivering:
    """The service that sends. Raises StoreUnavailable."""

    def __init__(
        self,
        *,
        store: WebhookStore,
        news: WebhookNews,
        sender: Sender,
        describe: Describe,
        feed: Feed,
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
        observer: Observer,
    ) -> None:
        self._store = store
        self._news = news
        self._sender = sender
        self._describe = describe
        self._feed = feed
        self._tasks = tasks
        self._clock = clock
        self._limits = limits
        self._observer = observer
        self._under_way: set[str] = set()
        """Ids of webhooks that are being sent to."""
        self._turns = count(1)
        self._served: dict[str, int] = {}
        """When those that have something to be sent had their last turn."""
        self._pause = 0.0

    async def turn(self) -> None:
        """Wait until something may be due, then begin to send to those to whom something is."""
        await self._news.wait(self._pause)
        self._pause = 0.0  # should this turn fail
        await asyncio.sleep(PAUSE_SECONDS)  # what comes together is looked at once
        now, waits = self.now(), LOOK_EVERY_SECONDS
        due = await self._store.due()
        self._served = {one: turn for one, turn in self._served.items() if one in due}
        for webhook_id in sorted(
            due, key=lambda one: self._served.get(one, 0)
        ):  # who had a turn goes behind the others
            if webhook_id in self._under_way:
                continue
            if due[webhook_id] > now:
                waits = min(waits, (due[webhook_id] - now) / 1_000_000)
            elif len(self._under_way) < WEBHOOKS_AT_ONCE:
                self._under_way.add(webhook_id)
                self._tasks.start(f"deliveries to {webhook_id}", partial(self._serve, webhook_id))
        self._pause = waits

    def now(self) -> Micros:
        """Return the moment that deliveries are due by: no clock that is set back keeps them waiting."""
        return max(self._clock.now(), self._clock.steady())

    async def _serve(self, webhook_id: str) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + SHARE_SECONDS
        while await self._send(webhook_id) and loop.time() < until:
            pass
        self._under_way.discard(webhook_id)
        self._served[webhook_id] = next(self._turns)
        self._news.hint()

    async def _send(self, webhook_id: str) -> bool:
        """Send what is due of a webhook, a few at once, and record what came of it; return whether anything was."""
        found = await self._store.due_of(webhook_id, self.now(), limit=AT_ONCE)
        if found is None:
            return False
        webhook, secrets = found.webhook, found.secrets
        requests = [(due.delivery, self._body(due)) for due in found.due]
        del found  # records may be long, what is sent is not
        answers = await asyncio.gather(
            *(self._post(webhook.url, secrets, delivery, body) for delivery, body in requests)
        )
        reached(CrashPoint.WEBHOOK_ANSWERED)
        attempts = [self._attempt(delivery, answer) for (delivery, _), answer in zip(requests, answers, strict=True)]
        condition = self._condition(webhook, answers)
        await self._store.attempted(webhook, attempts, condition)
        reached(CrashPoint.WEBHOOK_COMMITTED)
        for attempt in attempts:
            self._observer.attempted(attempt)
        if condition.disabled_reason:
            log.warning("webhook %s is disabled: %s", webhook.id, condition.disabled_reason)
        for delivery, _ in requests:
            self._feed.notify(key_of(delivery))
        return True

    def _body(self, due: Due) -> bytes | None:
        if due.subject is None and due.delivery.type is not EventType.TEST:
            return None
        return self._describe(due.delivery, due.subject)

    async def _post(self, url: str, secrets: Sequence[str], delivery: Delivery, body: bytes | None) -> Answer:
        if body is None:
            return Answer(None, _DELETED)
        timestamp = self._clock.now() // 1_000_000
        headers: Mapping[str, str] = {
            "webhook-id": delivery.event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(secrets, delivery.event_id, timestamp, body),
        }
        return await self._sender.post(url, headers, body)

    def _attempt(self, delivery: Delivery, answer: Answer) -> Attempt:
        now = self.now()
        event, next_at = DeliveryEvent.ACCEPTED, delivery.next_at
        if not answer.accepted:
            began = now if delivery.first_attempt_at is None else delivery.first_attempt_at
            first, failures = self._limits.webhook_first_retry_ms, delivery.attempts + 1
            next_at = now + back_off(first, _RETRY_FACTOR, _LONGEST_RETRY_MS, failures, self._clock.random(4))
            over = next_at - began > self._limits.webhook_retry_hours * _HOUR_US or answer.error == _DELETED
            event = DeliveryEvent.GIVEN_UP if over else DeliveryEvent.REFUSED
        error = None if answer.accepted else answer.error or f"the endpoint answered {answer.status}"
        return Attempt(delivery=delivery, event=event, at=now, status=answer.status, error=error, next_at=next_at)

    def _condition(self, webhook: Webhook, answers: list[Answer]) -> Condition:
        asked = [answer for answer in answers if answer.error != _DELETED]
        if not asked:
            return Condition(
                failures=webhook.failures, failing_since=webhook.failing_since, resume_at=webhook.resume_at
            )
        gone = any(answer.status == _GONE for answer in asked)
        if not gone and any(answer.accepted for answer in asked):
            return Condition(failures=0, failing_since=None, resume_at=0)
        now, failures = self.now(), webhook.failures + 1
        since = now if webhook.failing_since is None else webhook.failing_since
        first = self._limits.webhook_first_retry_ms // 5
        pause = back_off(first, 2, _LONGEST_PAUSE_MS, failures, self._clock.random(4))
        reason = None
        if gone:
            reason = "the endpoint answered 410 Gone"
        elif now - since >= self._limits.webhook_disable_hours * _HOUR_US:
            reason = f"nothing could be delivered for {self._limits.webhook_disable_hours} hours"
        return Condition(failures=failures, failing_since=since, resume_at=now + pause, disabled_reason=reason)


def key_of(delivery: Delivery) -> str:
    """Return what those listen to who wait for an attempt of a delivery."""
    return f"{delivery.webhook_id}/{delivery.event_id}"
