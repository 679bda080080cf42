"""Checks of what callers send, whichever way it comes in. Raise Invalid, whose field is the last word of the location."""

from __future__ import annotations

from dormice.domain.errors import Invalid
from dormice.domain.ids import canonical_uuid
from dormice.domain.limits import Limits
from dormice.engine.runs.orders import RunOrder

MAX_INT32 = (1 << 31) - 1
MOST_DELAY_MS = 100 * 366 * 24 * 3600 * 1000


def check_order(order: RunOrder) -> None:
    """Check a run that is to be made."""
    check_given(order.workflow_id, "body.workflow_id")
    check_positive(order.queue_limit, "body.queue_concurrency_limit")
    check_positive(order.run_timeout_seconds, "body.run_timeout_seconds")
    if not -MAX_INT32 <= order.priority <= MAX_INT32:
        raise _invalid("must be a 32-bit integer", "body.priority")


def check_step_key(step_key: str, limits: Limits, location: str = "body.step_key") -> None:
    """Check the key of a step."""
    if not 0 < len(step_key) <= limits.step_key_chars:
        raise _invalid(f"must have from 1 to {limits.step_key_chars} characters (step_key_chars)", location)


def check_topic(topic: str, limits: Limits, location: str) -> None:
    """Check a topic."""
    if not 0 < len(topic) <= limits.topic_chars:
        raise _invalid(f"must have from 1 to {limits.topic_chars} characters (topic_chars)", location)


def check_given(text: str, location: str) -> None:
    """Check that a text is not empty."""
    if not text:
        raise _invalid("must not be empty", location)


def check_positive(number: int | None, location: str) -> None:
    """Check a number that is counted or measured by, unless it is not given."""
    if number is not None and not 0 < number <= MAX_INT32:
        raise _invalid("must be a positive 32-bit integer", location)


def check_delay(milliseconds: int, name: str) -> None:
    """Check a time that passes before something."""
    if not 0 <= milliseconds <= MOST_DELAY_MS:
        raise Invalid(f"{name} must be from 0 to {MOST_DELAY_MS}, which is 100 years")


def uuid_of(text: str, location: str) -> str:
    """Return an id that is a UUID as it is stored."""
    try:
        return canonical_uuid(text)
    except ValueError:
        raise _invalid("must be a UUID", location) from None


def _invalid(fault: str, location: str) -> Invalid:
    return Invalid(f"{location.rpartition('.')[2]} {fault}", location=location, status=400)
