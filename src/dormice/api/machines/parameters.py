"""Query parameters and headers that several routes share."""

from __future__ import annotations

from dormice.api.http.call import INT64_MAX
from dormice.api.http.operation import Parameter
from dormice.domain.limits import Limits

IF_MATCH = Parameter(
    "If-Match",
    "header",
    {"type": "string"},
    "The revision that the machine must have, quoted or not; `*` is any. Otherwise 409 `REVISION_MISMATCH`.",
)

FORCE = Parameter(
    "force",
    "query",
    {"type": "boolean", "default": False},
    "Kill at once, without a grace for those inside. Files are safe as far as they were synced.",
)

ENCODING = Parameter(
    "encoding",
    "query",
    {"type": "string", "enum": ["text", "base64"], "default": "text"},
    "`base64`: the exact bytes. `text`: UTF-8, with U+FFFD for what is none.",
)


def idempotency_key(limits: Limits, *, required: bool, refusal: str = "IDEMPOTENCY_KEY_REUSED") -> Parameter:
    """Return the header that makes a repeated request harmless. `refusal`: how the surface calls a key that is used again."""
    schema = {"type": "string", "minLength": 1, "maxLength": limits.idempotency_key_bytes}
    description = (
        "New for every request, the same on its retries. The same key with the same request is answered with the same "
        f"resource; with another request, 409 `{refusal}`."
    )
    return Parameter("Idempotency-Key", "header", schema, description, required=required)


def wait_ms(limits: Limits, until: str) -> Parameter:
    """Return the long poll's parameter."""
    schema = {"type": "integer", "minimum": 0, "maximum": limits.wait_ms, "default": 0}
    return Parameter("wait_ms", "query", schema, f"Hold the answer back until {until}, or this many milliseconds.")


def paging(default: int, limits: Limits) -> tuple[Parameter, Parameter]:
    """Return the two parameters of a list."""
    size = {"type": "integer", "format": "int64", "minimum": 0, "maximum": INT64_MAX}
    return (
        Parameter(
            "limit", "query", size, f"Items per page; 0 is {default}, above {limits.page_max} is {limits.page_max}."
        ),
        Parameter(
            "cursor", "query", {"type": "string", "pattern": "^(b[0-9]{1,18})?$"}, "`next_cursor` of the page before."
        ),
    )


def event_parameters(limits: Limits) -> tuple[Parameter, ...]:
    """Return the parameters of an execution's log."""
    limit, _ = paging(limits.page_max, limits)
    cursor = {"type": "string", "pattern": "^([0-9]{1,18})?$"}
    last = "Resume a stream after this sequence; goes before `cursor`."
    return (
        limit,
        Parameter("cursor", "query", cursor, "The sequence after which to go on: `next_cursor`, or an event's own."),
        ENCODING,
        Parameter("Last-Event-ID", "header", {"type": "string"}, last),
        wait_ms(limits, "there is an event after the cursor"),
    )
