"""JSON documents inside of other documents: they are kept as they came, and `null` is the same as none."""

from __future__ import annotations

from msgspec import Raw

from dormice.domain.run import NULL, Json

_NOTHING = Raw(NULL)


def nothing() -> Raw:
    """The document of a field that is absent. (A factory: a default itself would have to be told in the OpenAPI document.)"""
    return _NOTHING


def raw(document: Json | None) -> Raw:
    """A document as it came, to be put into another one."""
    return _NOTHING if document is None else Raw(document)


def json(document: Raw) -> Json | None:
    """A document out of another one, as it came; None when it is absent or null."""
    text = bytes(document)
    return None if text == NULL else text
