"""What a workflow says of itself when a worker registers it: how failed attempts are taken again, and what its payloads and results look like."""

from __future__ import annotations

import random
from functools import lru_cache

import msgspec
from msgspec import Struct

from dormice.domain.errors import Invalid
from dormice.domain.execution import Micros
from dormice.domain.run import NULL, Json
from dormice.engine.runs.schema_checks import SchemaChecks, TooCostly
from dormice.engine.runs.schemas import SCHEMA, UNREADABLE
from dormice.store.projects import Definition

SCHEMA_BYTES = 256 * 1024


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
    run_timeout_seconds: int | None = None
    """Of runs that name none: how long each attempt may be with a worker. None: for ever."""
    input_schema: msgspec.Raw = msgspec.Raw(NULL)
    output_schema: msgspec.Raw = msgspec.Raw(NULL)


DEFAULT = Offer()
_NOTHING = msgspec.Raw(NULL)


class Offers:
    """Judges what workflows say of themselves, and by that what they are given and give. Raises Invalid, Unavailable.

    An organization is named, as schemas that take long to compare with hold up its own others only.
    """

    def __init__(self, checks: SchemaChecks) -> None:
        self._checks = checks

    async def check(self, organization_id: str, spec: Json) -> None:
        """Raise Invalid for a spec that cannot be gone by."""
        offer = _checked(spec)
        for name, raw in (("input_schema", offer.input_schema), ("output_schema", offer.output_schema)):
            if len(raw) > SCHEMA_BYTES:
                raise Invalid(f"{name} must have at most {SCHEMA_BYTES} bytes", location=f"body.{name}", status=400)
            if raw == _NOTHING:
                continue
            try:
                problem = await self._checks.problem(organization_id, bytes(raw))
            except TooCostly:
                problem = f"to read it takes more than {self._time}"
            if problem is not None:
                raise Invalid(
                    f"{name} is no JSON Schema (draft 2020-12) that stands for itself: {problem}",
                    location=f"body.{name}",
                    status=400,
                )

    async def check_payload(self, organization_id: str, offer: Offer, payload: Json, name: str = "payload") -> None:
        """Raise Invalid for a payload that does not fit the schema of the workflow. `name`: what it is called in the request."""
        fault = await self.fault_of_payload(organization_id, offer, payload, name)
        if fault is not None:
            raise Invalid(fault, location=f"body.{name}", status=400)

    async def fault_of_payload(
        self, organization_id: str, offer: Offer, payload: Json, name: str = "payload"
    ) -> str | None:
        """Say where and why a payload does not fit the schema of the workflow; None if it does. The payload is not repeated."""
        if offer.input_schema == _NOTHING:
            return None
        return await self._fault(organization_id, name, payload, "input_schema", bytes(offer.input_schema))

    def takes_at_once(self, offer: Offer, result: Json | None) -> bool:
        """Whether it is seen at once that a result fits the schema of the workflow; False says nothing."""
        schema = offer.output_schema
        return schema == _NOTHING or self._checks.fits_at_once(bytes(schema), result or NULL)

    async def fault_of_result(self, organization_id: str, offer: Offer, result: Json | None) -> str | None:
        """Say where and why a result does not fit the schema of the workflow; None if it does. The result is not repeated."""
        if offer.output_schema == _NOTHING:
            return None
        return await self._fault(organization_id, "result", result or NULL, "output_schema", bytes(offer.output_schema))

    async def _fault(self, organization_id: str, what: str, document: Json, name: str, schema: Json) -> str | None:
        try:
            misfit = await self._checks.misfit(organization_id, schema, document)
        except TooCostly:
            misfit = (
                f" cannot be compared with {SCHEMA} in {self._time}: make the schema simpler, or what it is for smaller"
            )
        return misfit and what + misfit.replace(SCHEMA, f"the workflow's {name}", 1)

    @property
    def _time(self) -> str:
        return f"{self._checks.milliseconds} ms of processor time for each MiB begun (schema_check_ms)"


def _checked(spec: Json) -> Offer:
    try:
        offer = msgspec.json.decode(spec, type=Offer)
    except UNREADABLE as error:
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
    return offer


def offer_of(definition: Definition) -> Offer:
    """Return what a definition says."""
    return _offer(definition.spec)


@lru_cache(1024)
def _offer(spec: Json) -> Offer:
    return msgspec.json.decode(spec, type=Offer)
