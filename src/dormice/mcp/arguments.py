"""Arguments that a tool does not take, told in words: which, what it may be, and what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

_WORDS = {
    "missing": "is missing",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}


def faults(error: ValidationError, schema: Mapping[str, Any]) -> str:
    """Return one sentence for each argument that is wrong; the tool's schema tells what it is for."""
    properties = schema.get("properties", {})
    told = []
    for fault in error.errors(include_url=False, include_input=False):
        name, *inside = fault["loc"] or ("the arguments",)
        ours = _WORDS.get(fault["type"])
        words = fault["msg"] if ours is None else ours.format_map(fault.get("ctx", {}))
        purpose = properties.get(name, {}).get("description", "")
        told.append(f"{name}{''.join(f'[{key}]' for key in inside)} {words}. {purpose}".rstrip())
    return "\n".join(told)
