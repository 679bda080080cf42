"""What webhooks are told of, recorded in the transaction in which it happens: at the end of an execution, and when a machine has changed."""

from __future__ import annotations

from typing import Any

import apsw
import msgspec

from dormice.domain.execution import Execution, Micros
from dormice.domain.machine import Machine
from dormice.domain.webhook import EVENT_OF_PHASE, EVENT_OF_STATE, Delivery, EventType, event_id_of, wants
from dormice.store.sqlite import rows, statements
from dormice.store.webhooks import Due

_SQL = statements.load("webhooks.sql")
_EXECUTIONS = statements.load("executions.sql")
_words = msgspec.json.Decoder(tuple[str, ...])
_machine = msgspec.json.Decoder(Machine)


def execution_ended(db: apsw.Connection, execution: Execution) -> None:
    """Record whom to tell that an execution has ended."""
    kind = EVENT_OF_STATE[execution.state]
    for webhook_id in _told(db, execution.organization_id, kind):
        event = (event_id_of(execution), kind, execution.completed_at or 0)
        tell(db, webhook_id, *event, machine_id=execution.machine_id, execution_id=execution.id)


def machine_moved(db: apsw.Connection, machine: Machine) -> None:
    """Record whom to tell of a machine's new phase, and how the machine is now."""
    kind = EVENT_OF_PHASE.get(machine.phase)
    if kind is None:
        return
    for webhook_id in _told(db, machine.organization_id, kind):
        event = (event_id_of(machine), kind, machine.last_transition_at)
        tell(db, webhook_id, *event, machine_id=machine.id, machine=msgspec.json.encode(machine))


def tell(
    db: apsw.Connection,
    webhook_id: str,
    event_id: str,
    kind: EventType,
    at: Micros,
    *,
    machine_id: str | None = None,
    execution_id: str | None = None,
    machine: bytes | None = None,
) -> None:
    """Record an event for a webhook."""
    db.execute(_SQL["tell"], (webhook_id, event_id, kind.value, at, machine_id, execution_id, machine))


def due(db: apsw.Connection, delivery: Delivery, machine: bytes | None) -> Due:
    """Return a delivery with what it tells of."""
    if machine is not None:
        return Due(delivery, _snapshot(machine))
    row = db.execute(_EXECUTIONS["load"], (delivery.execution_id,)).get
    return Due(delivery, None if row is None else rows.execution(row))


def _snapshot(machine: bytes) -> Machine | None:
    try:
        return _machine.decode(machine)
    except msgspec.ValidationError:  # of another release, whose machines had other fields
        return None


def _told(db: apsw.Connection, organization_id: str, kind: EventType) -> list[str]:
    webhooks: list[Any] = db.execute(_SQL["told"], (organization_id,)).fetchall()
    return [webhook_id for webhook_id, events in webhooks if wants(_words.decode(events), kind)]
