"""Values to JSON and back, by the annotations of functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import msgspec

from dormice.workflows.errors import NotJson

NULL = b"null"
_encoder = msgspec.json.Encoder()


def encode(value: object, what: str) -> msgspec.Raw:
    """Return a value as JSON. Raises NotJson, which says of `what`."""
    try:
        return msgspec.Raw(_encoder.encode(value))
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise NotJson(f"{what} cannot be written as JSON: {error}") from error


def decode(document: msgspec.Raw | bytes, type_: Any, what: str) -> Any:
    """Return a value of a type. Raises NotJson."""
    try:
        return _decoder(type_).decode(document)
    except (TypeError, msgspec.MsgspecError) as error:
        raise NotJson(f"{what} is not what its annotation says: {error}") from error


def return_type(function: Callable[..., object]) -> Any:
    """What a function says that it returns; Any if it does not."""
    return hints(function).get("return", Any)


def hints(function: Callable[..., object]) -> Mapping[str, Any]:
    """The annotations of a function, resolved; none if they name what cannot be found."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    annotations: Mapping[str, Any] = getattr(function, "__annotations__", {})
    if not any(isinstance(value, str) for value in annotations.values()):
        return annotations
    try:
        return get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return {}


def schema(type_: Any) -> Mapping[str, Any] | None:
    """The JSON Schema of a type; None for one that has none."""
    if type_ is Any:
        return None
    try:
        return msgspec.json.schema(type_)
    except (TypeError, msgspec.MsgspecError, RuntimeError):
        return None


def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    try:
        return _kept_decoder(type_)
    except TypeError:  # not hashable, or not known to msgspec
        return msgspec.json.Decoder(type_)


@functools.lru_cache(maxsize=1024)
def _kept_decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)
