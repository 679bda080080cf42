"""Webhooks: what an organization is told by requests to a URL of its own, how they are signed, and when they are sent again.

Rules for editing: as in execution.py. The words are wire format.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from dormice.domain.execution import Execution, ExecutionState, Micros
from dormice.domain.machine import Machine, Phase
from dormice.domain.transitions import follow


class EventType(StrEnum):
    """What happened."""

    EXECUTION_SUCCEEDED = "execution.succeeded"
    EXECUTION_FAILED = "execution.failed"
    EXECUTION_CANCELLED = "execution.cancelled"
    EXECUTION_EXPIRED = "execution.expired"
    MACHINE_RUNNING = "machine.running"
    MACHINE_SLEEPING = "machine.sleeping"
    MACHINE_FAILED = "machine.failed"
    MACHINE_DESTROYED = "machine.destroyed"
    TEST = "webhook.test"


_T = EventType

FAMILIES: Final[Mapping[str, frozenset[EventType]]] = {
    "execution.finished": frozenset(
        {_T.EXECUTION_SUCCEEDED, _T.EXECUTION_FAILED, _T.EXECUTION_CANCELLED, _T.EXECUTION_EXPIRED}
    ),
    "machine.changed": frozenset({_T.MACHINE_RUNNING, _T.MACHINE_SLEEPING, _T.MACHINE_FAILED, _T.MACHINE_DESTROYED}),
}
"""Words that stand for several."""
SUBSCRIBABLE: Final = (*FAMILIES, *(kind.value for kind in EventType if kind is not EventType.TEST))
"""What a webhook may ask for; a test event comes whatever it asks for."""
EVENT_OF_STATE: Final[Mapping[ExecutionState, EventType]] = {
    ExecutionState.SUCCEEDED: _T.EXECUTION_SUCCEEDED,
    ExecutionState.FAILED: _T.EXECUTION_FAILED,
    ExecutionState.CANCELLED: _T.EXECUTION_CANCELLED,
    ExecutionState.EXPIRED: _T.EXECUTION_EXPIRED,
}
EVENT_OF_PHASE: Final[Mapping[Phase, EventType]] = {
    Phase.RUNNING: _T.MACHINE_RUNNING,
    Phase.SLEEPING: _T.MACHINE_SLEEPING,
    Phase.FAILED: _T.MACHINE_FAILED,
    Phase.DESTROYED: _T.MACHINE_DESTROYED,
}


class DeliveryState(StrEnum):
    """Where a delivery is."""

    PENDING = "pending"  # not sent yet, or to be sent again
    DELIVERED = "delivered"  # the endpoint has answered 2xx
    FAILED = "failed"  # given up


class DeliveryEvent(StrEnum):
    """What can happen to a delivery."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    GIVEN_UP = "given_up"
    REDELIVER = "redeliver"


_S, _E = DeliveryState, DeliveryEvent

TRANSITIONS: Mapping[DeliveryState, Mapping[DeliveryEvent, DeliveryState]] = {
    _S.PENDING: {
        _E.ACCEPTED: _S.DELIVERED,
        _E.REFUSED: _S.PENDING,
        _E.GIVEN_UP: _S.FAILED,
        _E.REDELIVER: _S.PENDING,
    },
    _S.DELIVERED: {_E.REDELIVER: _S.PENDING},
    _S.FAILED: {_E.REDELIVER: _S.PENDING},
}


class Webhook(Struct, frozen=True, kw_only=True):
    """A URL that is told of events. Its secret is not part of it."""

    id: str
    organization_id: str
    url: str
    events: tuple[str, ...]
    """Of SUBSCRIBABLE."""
    enabled: bool
    created_at: Micros
    revision: int
    """Grows when its owner changes it."""
    failures: int = 0
    """Attempts that failed since the last that did not."""
    failing_since: Micros | None = None
    resume_at: Micros = 0
    """Nothing is sent before: it has just failed."""
    disabled_reason: str | None = None
    """Why the server has disabled it."""

    def wants(self, kind: EventType) -> bool:
        """Whether it is to be told of such events."""
        return wants(self.events, kind)


class Delivery(Struct, frozen=True, kw_only=True):
    """One event on its way to one webhook."""

    number: int
    """Orders lists and cursors."""
    webhook_id: str
    event_id: str
    """The same at every attempt, and for all webhooks that are told."""
    type: EventType
    at: Micros
    state: DeliveryState
    machine_id: str | None = None
    execution_id: str | None = None
    attempts: int = 0
    next_at: Micros = 0
    """When it is due, while it is pending."""
    first_attempt_at: Micros | None = None
    """Since when it is tried; a redelivery begins anew."""
    last_attempt_at: Micros | None = None
    last_status: int | None = None
    last_error: str | None = None
    ended_at: Micros | None = None

    def on(self, event: DeliveryEvent) -> DeliveryState:
        """Return the state that `event` leads to. Raises IllegalTransition."""
        return follow(TRANSITIONS, self.state, event)


def wants(events: Iterable[str], kind: EventType) -> bool:
    """Whether one of these words stands for such events."""
    return any(word == kind.value or kind in FAMILIES.get(word, ()) for word in events)


def event_id_of(subject: Execution | Machine) -> str:
    """Return what the event of an end, or of a phase, is called: always the same for the same one."""
    if isinstance(subject, Execution):
        return f"evt-{subject.id.partition('-')[2]}"
    return f"evt-{subject.id.partition('-')[2]}-{subject.revision}"


SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every secret begins with
SECRET_BYTES: Final = 32


def secret_of(random: bytes) -> str:
    """Return a secret as Standard Webhooks writes it."""
    return SECRET_PREFIX + base64.b64encode(random).decode()


def signatures(secrets: Sequence[str], event_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`: one signature for each secret. Raises ValueError for what is no secret."""
    content = b"%s.%d.%s" % (event_id.encode(), timestamp, body)
    return " ".join(f"v1,{_signature(secret, content)}" for secret in secrets)


def _signature(secret: str, content: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("not a webhook's secret") from None
    return base64.b64encode(hmac.digest(key, content, "sha256")).decode()


def back_off(first_ms: int, factor: int, most_ms: int, failures: int, random: bytes) -> Micros:
    """Return how long to wait after so many failures (1 or more): grows by `factor` up to `most_ms`, of which half to all is taken."""
    longest = min(most_ms, first_ms * factor ** min(failures - 1, 32))
    share = 0.5 + int.from_bytes(random[:4], "big") / (1 << 33)
    return int(longest * 1000 * share)
