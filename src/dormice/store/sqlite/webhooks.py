"""Webhooks: every method of the port, each one transaction."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any

import apsw
import msgspec

from dormice.domain.execution import Micros
from dormice.domain.webhook import Delivery, DeliveryEvent, DeliveryState, EventType, Webhook
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed
from dormice.store.sealing import Sealer
from dormice.store.sqlite import idempotency, statements, webhook_events
from dormice.store.sqlite.reader import SHORT_ROWS, Reader
from dormice.store.sqlite.writer import Writer
from dormice.store.webhooks import Attempt, Condition, DueOfWebhook, NewWebhook, Pending, TooManyWebhooks, WebhookChange

_SQL = statements.load("webhooks.sql")
_words = msgspec.json.Decoder(tuple[str, ...])
_SECRET = 11
"""Its place in a row; behind it the one before it, and until when that counts."""


class _Kind(StrEnum):
    WEBHOOK = "webhook"


class SqliteWebhooks:
    """WebhookStore on SQLite."""

    def __init__(self, writer: Writer, reader: Reader, sealer: Sealer) -> None:
        self._writer = writer
        self._reader = reader
        self._sealer = sealer

    async def create(
        self, new: NewWebhook, claim: IdempotencyClaim | None, *, most: int
    ) -> Webhook | TooManyWebhooks | Replayed | KeyReused:
        sealed = self._seal(new.id, new.secret)
        return await self._writer.run(partial(_create, new=new, sealed=sealed, claim=claim, most=most), short=True)

    async def get(self, organization_id: str, webhook_id: str) -> Webhook | None:
        row = self._reader.point(lambda db: db.execute(_SQL["get"], (organization_id, webhook_id)).get)
        return None if row is None else _webhook(row)

    async def with_secret(self, organization_id: str, webhook_id: str) -> tuple[Webhook, str] | None:
        row = self._reader.point(lambda db: db.execute(_SQL["get"], (organization_id, webhook_id)).get)
        return None if row is None else (_webhook(row), self._unseal(webhook_id, row[_SECRET]))

    async def of(self, organization_id: str) -> list[Webhook]:
        rows = await self._reader.scan(lambda db: db.execute(_SQL["of"], (organization_id,)).fetchall())
        return [_webhook(row) for row in rows]

    async def change(self, organization_id: str, webhook_id: str, change: WebhookChange) -> Webhook | None:
        events = None if change.events is None else msgspec.json.encode(change.events)
        return await self._changed("change", (organization_id, webhook_id, change.url, events, change.enabled))

    async def rotate(self, organization_id: str, webhook_id: str, secret: str, *, until: Micros) -> Webhook | None:
        sealed = self._seal(webhook_id, secret)
        return await self._changed("rotate", (organization_id, webhook_id, sealed, until))

    async def delete(self, organization_id: str, webhook_id: str) -> Webhook | None:
        return await self._changed("delete", (organization_id, webhook_id))

    async def deliveries(
        self, organization_id: str, webhook_id: str, *, before: int | None, limit: int
    ) -> list[Delivery]:
        if await self.get(organization_id, webhook_id) is None:
            return []
        values = (webhook_id, sys.maxsize if before is None else before, limit)
        rows = await self._reader.read(
            lambda db: db.execute(_SQL["deliveries"], values).fetchall(), short=limit <= SHORT_ROWS
        )
        return [_delivery(row) for row in rows]

    async def delivery(self, organization_id: str, webhook_id: str, event_id: str) -> Delivery | None:
        if await self.get(organization_id, webhook_id) is None:
            return None
        row = self._reader.point(lambda db: db.execute(_SQL["delivery"], (webhook_id, event_id)).get)
        return None if row is None else _delivery(row)

    async def add_test(self, webhook: Webhook, event_id: str, now: Micros) -> Delivery | None:
        return await self._writer.run(partial(_add_test, webhook=webhook, event_id=event_id, now=now), short=True)

    async def redeliver(self, organization_id: str, webhook_id: str, event_id: str, now: Micros) -> Delivery | None:
        operation = partial(
            _redeliver, organization_id=organization_id, webhook_id=webhook_id, event_id=event_id, now=now
        )
        return await self._writer.run(operation, short=True)

    async def pending(self) -> Pending:
        row: Any = await self._reader.scan(lambda db: db.execute(_SQL["pending"]).fetchone())
        return Pending(*row)

    async def due(self) -> Mapping[str, Micros]:
        rows: list[Any] = await self._reader.scan(lambda db: db.execute(_SQL["due"]).fetchall())
        return dict(rows)

    async def due_of(self, webhook_id: str, now: Micros, *, limit: int) -> DueOfWebhook | None:
        return await self._reader.scan(partial(self._due_of, webhook_id=webhook_id, now=now, limit=limit))

    async def attempted(self, webhook: Webhook, attempts: Sequence[Attempt], condition: Condition) -> None:
        operation = partial(_attempted, webhook=webhook, attempts=attempts, condition=condition)
        await self._writer.run(operation, short=True)

    async def _changed(self, statement: str, values: tuple[Any, ...]) -> Webhook | None:
        row = await self._writer.run(lambda db: db.execute(_SQL[statement], values).get, short=True)
        return None if row is None else _webhook(row)

    def _due_of(self, db: apsw.Connection, webhook_id: str, now: Micros, limit: int) -> DueOfWebhook | None:
        row = db.execute(_SQL["load"], (webhook_id,)).get
        webhook = None if row is None else _webhook(row)
        if webhook is None or not webhook.enabled or webhook.resume_at > now:
            return None
        found: list[Any] = db.execute(_SQL["due_of"], (webhook_id, now, 1 if webhook.failures else limit)).fetchall()
        if not found:
            return None
        due = [webhook_events.due(db, _delivery(one), one[-1]) for one in found]
        sealed, previous, until = row[_SECRET : _SECRET + 3]
        secrets = [sealed, *([previous] if previous is not None and now < until else [])]
        return DueOfWebhook(webhook, tuple(self._unseal(webhook_id, secret) for secret in secrets), due)

    def _seal(self, webhook_id: str, secret: str) -> bytes:
        return self._sealer.seal(webhook_id, _Kind.WEBHOOK, 0, secret.encode())

    def _unseal(self, webhook_id: str, sealed: bytes) -> str:
        return self._sealer.unseal(webhook_id, _Kind.WEBHOOK, 0, sealed).decode()


def delete_old(db: apsw.Connection, before: Micros, limit: int) -> int:
    """Delete some deliveries of what happened before that moment; return how many."""
    db.execute(_SQL["delete_old"], (before, limit))
    return db.changes()


def _create(
    db: apsw.Connection, new: NewWebhook, sealed: bytes, claim: IdempotencyClaim | None, most: int
) -> Webhook | TooManyWebhooks | Replayed | KeyReused:
    if (answer := idempotency.find(db, claim)) is not None:
        return answer
    events = msgspec.json.encode(new.events)
    row = db.execute(
        _SQL["insert"], (new.id, new.organization_id, new.url, events, new.enabled, new.now, sealed, most)
    ).get
    if row is None:
        return TooManyWebhooks()
    idempotency.remember(db, claim, new.id)
    return _webhook(row)


def _add_test(db: apsw.Connection, webhook: Webhook, event_id: str, now: Micros) -> Delivery | None:
    if db.execute(_SQL["get"], (webhook.organization_id, webhook.id)).get is None:
        return None
    webhook_events.tell(db, webhook.id, event_id, EventType.TEST, now)
    return _delivery(db.execute(_SQL["delivery"], (webhook.id, event_id)).get)


def _redeliver(
    db: apsw.Connection, organization_id: str, webhook_id: str, event_id: str, now: Micros
) -> Delivery | None:
    if db.execute(_SQL["get"], (organization_id, webhook_id)).get is None:
        return None
    row = db.execute(_SQL["delivery"], (webhook_id, event_id)).get
    if row is None:
        return None
    state = _delivery(row).on(DeliveryEvent.REDELIVER)
    return _delivery(db.execute(_SQL["redeliver"], (webhook_id, event_id, state.value, now)).get)


def _attempted(db: apsw.Connection, webhook: Webhook, attempts: Sequence[Attempt], condition: Condition) -> None:
    for attempt in attempts:
        delivery = attempt.delivery
        state = delivery.on(attempt.event)
        ended_at = None if state is DeliveryState.PENDING else attempt.at
        guard = (delivery.number, delivery.state.value, delivery.attempts)
        values = (state.value, attempt.next_at, attempt.at, attempt.status, attempt.error, ended_at)
        db.execute(_SQL["attempted"], (*guard, *values, delivery.first_attempt_at))
    health = (condition.failures, condition.failing_since, condition.resume_at, condition.disabled_reason)
    db.execute(_SQL["condition"], (webhook.id, webhook.revision, *health))


def _webhook(row: Any) -> Webhook:
    return Webhook(
        id=row[0],
        organization_id=row[1],
        url=row[2],
        events=_words.decode(row[3]),
        enabled=bool(row[4]),
        created_at=row[5],
        revision=row[6],
        failures=row[7],
        failing_since=row[8],
        resume_at=row[9],
        disabled_reason=row[10],
    )


def _delivery(row: Any) -> Delivery:
    return Delivery(
        number=row[0],
        webhook_id=row[1],
        event_id=row[2],
        type=EventType(row[3]),
        at=row[4],
        state=DeliveryState(row[5]),
        machine_id=row[6],
        execution_id=row[7],
        attempts=row[8],
        next_at=row[9],
        first_attempt_at=row[10],
        last_attempt_at=row[11],
        last_status=row[12],
        last_error=row[13],
        ended_at=row[14],
    )
