"""JSON Schemas of strangers: fetched from nowhere, with expressions that take linear time (other ones are refused)."""

from __future__ import annotations

from functools import lru_cache
from typing import NoReturn

import msgspec
from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError

from dormice.domain.run import Json

UNREADABLE = (ValueError, RecursionError)
"""JSON that is well formed, and that means nothing to us: 1e400, half a surrogate pair, a thousand levels."""
_SHOWN_CHARS = 300
SCHEMA = "\0"
"""In what is said of a document: where the schema is to be named."""
_CANNOT = (
    f" cannot be compared with {SCHEMA}: a number in it is too large, "
    "a text has half a surrogate pair, or it is nested too deeply"
)
UNTOLD = f" does not fit {SCHEMA}; to say where takes too long"


@lru_cache(512)
def compiled(schema: Json) -> Draft202012Validator:
    """Return what compares. Raises one of UNREADABLE."""
    return Draft202012Validator(
        msgspec.json.decode(schema), retriever=_fetch_nothing, pattern_options=RegexOptions(), mask="the value"
    )


def problem(schema: Json) -> str | None:
    """Say why something is no schema; None if it is one."""
    try:
        compiled(schema)
    except UNREADABLE as error:
        return (error.message if isinstance(error, ValidationError) else str(error))[:_SHOWN_CHARS]
    return None


def fits(schema: Json, document: Json) -> bool:
    """Whether a document fits."""
    try:
        return compiled(schema).is_valid(msgspec.json.decode(document))
    except UNREADABLE:
        return False


def misfit(schema: Json, document: Json) -> str:
    """Say where and why a document does not fit, as it goes on after its name, with SCHEMA in it. The document is not repeated.

    This may take very much longer than to see that it does not: each way in which it could have fitted is described.
    """
    try:
        compiled(schema).validate(msgspec.json.decode(document))
    except ValidationError as error:
        where = "".join(f"[{part!r}]" for part in error.instance_path)[:_SHOWN_CHARS]
        return f"{where} does not fit {SCHEMA}: {error.message[:_SHOWN_CHARS]}"
    except UNREADABLE:
        pass
    return _CANNOT


def _fetch_nothing(uri: str) -> NoReturn:
    raise ValueError(f"nothing is fetched, not {uri} either")
