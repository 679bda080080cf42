"""What a workflow says of itself when a worker registers it: how failed attempts are taken again, and what its payloads and results look like."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import NoReturn

import msgspec
from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError
from msgspec import Struct

from dormice.domain.errors import Invalid
from dormice.domain.execution import Micros
from dormice.domain.run import NULL, Json
from dormice.store.projects import Definition

SCHEMA_BYTES = 256 * 1024
_SHOWN_CHARS = 300
_UNREADABLE = (ValueError, RecursionError)
"""JSON that is well formed, and that means nothing to us: 1e400, half a surrogate pair, a thousand levels."""


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """How often a failed attempt is followed by another one, and after which pause."""

    max_retries: int = 2
    initial_ms: int = 500
    multiplier: float = 2.0
    max_ms: int = 60_000

    def pause(self, failures: int) -> Micros:
        """The pause after so many failures, from half of it on at random ("equal jitter"), in microseconds."""
        longest = min(self.initial_ms * self.multiplier ** min(failures, 64), self.max_ms) * 1000
        return int(longest / 2 + random.random() * longest / 2)  # noqa: S311 - spreads load, guards nothing


class Offer(Struct, frozen=True, kw_only=True):
    """The parts of a definition's `spec` that the engine goes by."""

    retry_policy: RetryPolicy = RetryPolicy()
    queue_name: str | None = None
    """Where its runs wait, unless whoever asks for one says otherwise; None: in a queue of its own."""
    input_schema: msgspec.Raw = msgspec.Raw(NULL)
    output_schema: msgspec.Raw = msgspec.Raw(NULL)


DEFAULT = Offer()


def check_offer(spec: Json) -> None:
    """Raise Invalid for a spec that cannot be gone by."""
    try:
        offer = msgspec.json.decode(spec, type=Offer)
    except _UNREADABLE as error:
        raise Invalid(
            f"retry_policy or a schema cannot be read: {error}", location="body.retry_policy", status=400
        ) from None
    policy = offer.retry_policy
    if not (0 <= policy.max_retries <= 1_000 and 0 <= policy.initial_ms <= policy.max_ms <= 86_400_000):
        raise Invalid(
            "retry_policy must have max_retries from 0 to 1000, and 0 <= initial_ms <= max_ms <= 86400000",
            location="body.retry_policy",
            status=400,
        )
    if not 1 <= policy.multiplier <= 100:
        raise Invalid("retry_policy.multiplier must be from 1 to 100", location="body.retry_policy", status=400)
    for name, raw in (("input_schema", offer.input_schema), ("output_schema", offer.output_schema)):
        if len(raw) > SCHEMA_BYTES:
            raise Invalid(f"{name} must have at most {SCHEMA_BYTES} bytes", location=f"body.{name}", status=400)
        try:
            _validator(bytes(raw))
        except _UNREADABLE as error:
            problem = error.message if isinstance(error, ValidationError) else str(error)
            raise Invalid(
                f"{name} is no JSON Schema (draft 2020-12) that stands for itself: {problem[:_SHOWN_CHARS]}",
                location=f"body.{name}",
                status=400,
            ) from None


def offer_of(definition: Definition) -> Offer:
    """Return what a definition says."""
    return _offer(definition.spec)


@lru_cache(1024)
def _offer(spec: Json) -> Offer:
    return msgspec.json.decode(spec, type=Offer)


def check_payload(offer: Offer, payload: Json, name: str = "payload") -> None:
    """Raise Invalid for a payload that does not fit the schema of the workflow. `name`: what it is called in the request."""
    fault = fault_of_payload(offer, payload, name)
    if fault is not None:
        raise Invalid(fault, location=f"body.{name}", status=400)


def fault_of_payload(offer: Offer, payload: Json, name: str = "payload") -> str | None:
    """Say where and why a payload does not fit the schema of the workflow; None if it does. The payload is not repeated."""
    return _fault(name, payload, "input_schema", offer.input_schema)


def fault_of_result(offer: Offer, result: Json | None) -> str | None:
    """Say where and why a result does not fit the schema of the workflow; None if it does. The result is not repeated."""
    return _fault("result", result or NULL, "output_schema", offer.output_schema)


def _fault(what: str, document: Json, name: str, schema: msgspec.Raw) -> str | None:
    validator = _validator(bytes(schema))
    if validator is None:
        return None
    try:
        error = next(validator.iter_errors(msgspec.json.decode(document)), None)
    except _UNREADABLE:
        return (
            f"{what} cannot be compared with the workflow's {name}: a number in it is too large, "
            "a text has half a surrogate pair, or it is nested too deeply"
        )
    if error is None:
        return None
    where = "".join(f"[{part!r}]" for part in error.instance_path)[:_SHOWN_CHARS]
    return f"{what}{where} does not fit the workflow's {name}: {error.message[:_SHOWN_CHARS]}"


@lru_cache(512)
def _validator(schema: Json) -> Draft202012Validator | None:
    """A schema of a stranger: it is fetched from nowhere, and its expressions take linear time (other ones are refused)."""
    document = msgspec.json.decode(schema)
    if document is None:
        return None
    return Draft202012Validator(document, retriever=_fetch_nothing, pattern_options=RegexOptions(), mask="the value")


def _fetch_nothing(uri: str) -> NoReturn:
    raise ValueError(f"nothing is fetched, not {uri} either")
