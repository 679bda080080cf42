"""JSON bodies: 400 for what is no JSON, 422 for what is not of the right form; values are never repeated back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

from dormice.api.http.errors import Fault, InvalidRequest
from dormice.domain.errors import Invalid

T = TypeVar("T", bound=msgspec.Struct)

_TYPE = re.compile(r"Expected `([^`]*)`(?:, got `([^`]*)`)?")
_FIELD = re.compile(r"field `(.*)`")
_PATH = re.compile(r" - at `\$\.?(.*)`$", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
_SHOWN = 64


class BodyDecoder(Generic[T]):
    """Decodes request bodies of one type."""

    def __init__(self, body: type[T]) -> None:
        self._decoder = msgspec.json.Decoder(body)
        self._fields = ", ".join(body.__struct_encode_fields__)

    def decode(self, content_type: str | None, body: bytes) -> T:
        """Return the body. Raises Invalid: 415, 400 or 422."""
        if content_type is not None and not _is_json(content_type):
            raise Invalid(
                "the body must be JSON: send Content-Type: application/json", location="header.Content-Type", status=415
            )
        try:
            if not body.isascii():
                body.decode()  # documents that are taken as they come are not looked at otherwise
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            # It stops at the first fault; what comes after may not even be JSON.
            _check_json(body)
            raise InvalidRequest([self._fault(str(error))]) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            _explain(body)

    def _fault(self, text: str) -> Fault:
        where = match[1][:_SHOWN] if (match := _PATH.search(text)) else ""
        name = where or "the body"
        location = f"body.{where}" if where else "body"
        if match := _TYPE.search(text):
            wanted = " or ".join(_WORDS.get(word.strip(), word.strip()) for word in match[1].split("|"))
            got = f", not {_WORDS.get(match[2], match[2])}" if match[2] else ""
            return Fault(f"{name} must be {wanted}{got}", location)
        if match := _FIELD.search(_PATH.sub("", text)):
            field = match[1][:_SHOWN]
            if "missing" in text:
                return Fault(f"{where}.{field} is required" if where else f"{field} is required", f"{location}.{field}")
            return Fault(f"unknown field {field}; known fields: {self._fields}", f"{location}.{field}")
        return Fault(f"{name} is out of range", location)


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def _check_json(body: bytes) -> None:
    try:
        msgspec.json.decode(body)
    except msgspec.ValidationError:
        return  # a number out of range: JSON all the same
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _explain(body)


def _explain(body: bytes) -> NoReturn:
    """Say what is wrong with a body that the fast decoder took for malformed."""
    if not body.strip():
        raise Invalid("the body is empty: send a JSON object", location="body", status=400)
    try:
        document = json.loads(body.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise Invalid("the body is not UTF-8", location="body", status=400) from None
    except json.JSONDecodeError as error:
        raise Invalid(
            f"the body is not JSON: line {error.lineno}, column {error.colno}", location="body", status=400
        ) from None
    except (ValueError, RecursionError):
        raise Invalid("the body is not JSON that can be read", location="body", status=400) from None
    where = next(_surrogates(document, ""), None)
    if where is None:
        raise Invalid("the body is not JSON that can be read", location="body", status=400)
    message = (
        f"{where[:_SHOWN] or 'the body'} has half of a surrogate pair, which is no text: send both halves, or neither"
    )
    raise InvalidRequest([Fault(message, f"body.{where[:_SHOWN]}" if where else "body")])


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _surrogates(value: Any, where: str) -> Iterator[str]:
    """Yield where in a document a lone surrogate stands. Nesting is bounded: json.loads has read it."""
    if isinstance(value, str):
        if _SURROGATE.search(value):
            yield where
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _surrogates(item, f"{where}[{index}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            plain = _SURROGATE.sub("\ufffd", name)
            inner = f"{where}.{plain}" if where else plain
            if plain != name:
                yield inner
            yield from _surrogates(item, inner)
