"""What a suspended run asks, as a form: what its fields are, and what a browser's answer to them means.

The form is in the data of the run's `suspend_…` event, under `_form`: `{title, description, fields, context}`. Whatever else is there is
shown as it is, and answered with JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

APPROVED = "approved"
DEFAULT_TITLE = "A run waits for an answer"
MOST_FIELDS = 100
SHOWN_CHARS = 64 * 1024
"""What is shown of data that the run has added, at most."""
_KINDS = {"boolean", "select", "text", "textarea", "number"}
_NUMBERS = {"number", "integer", "float", "int"}
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormField:
    """Something to be filled in."""

    name: str
    """As the browser sends it."""
    key: str
    """As the run gets it."""
    kind: str
    label: str
    help: str = ""
    required: bool = False
    default: Any = None
    options: Sequence[tuple[str, Any]] = ()
    """Labels and values of a select."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What is asked."""

    title: str = DEFAULT_TITLE
    description: str = ""
    shown: str = ""
    """Data to be read before one answers."""
    fields: Sequence[FormField] = ()
    decides: bool = False
    """Whether the answer is to approve or to reject."""
    free: bool = False
    """Whether it has no fields: the answer is any JSON."""


@dataclass(eq=False, slots=True)
class FormFaults(Exception):
    """What is wrong with an answer, by field."""

    faults: Mapping[str, str] = field(default_factory=dict)


def form_of(data: bytes | None) -> Form:
    """Return the form that an event's data asks to be filled in."""
    try:
        document = json.loads(data or b"null")
    except (ValueError, RecursionError):
        return Form(free=True)
    asked = document.get("_form") if isinstance(document, dict) else None
    if not isinstance(asked, dict):
        return Form(shown=_pretty(_without_marks(document)), free=True)
    fields = _fields(asked.get("fields"))
    return Form(
        title=_text(asked.get("title")) or DEFAULT_TITLE,
        description=_text(asked.get("description")),
        shown=_pretty(asked.get("context")),
        fields=[one for one in fields if one.key != APPROVED],
        decides=any(one.key == APPROVED for one in fields),
        free=not fields,
    )


def read_answer(form: Form, sent: Mapping[str, str]) -> Any:
    """Return the data that an answer means. Raises FormFaults."""
    if form.free:
        return _read_free(sent.get("answer", ""))
    answer: dict[str, Any] = {}
    rejected = False
    if form.decides:
        decision = sent.get("decision")
        if decision not in ("approve", "reject"):
            raise FormFaults({"decision": "Approve or reject."})
        rejected = decision == "reject"
        answer[APPROVED] = not rejected
    faults = {}
    for one in form.fields:
        try:
            value = _read(one, sent.get(one.name, ""))
        except ValueError as error:
            faults[one.name] = str(error)
            continue
        if value is not None:
            answer[one.key] = value
        elif one.required and not rejected:
            faults[one.name] = "This is required."
    if faults:
        raise FormFaults(faults)
    return answer


def _read(one: FormField, text: str) -> Any:
    """Return a field's value, None when nothing was filled in. Raises ValueError."""
    if one.kind == "boolean":
        return bool(text)
    if not text:
        return None
    if one.kind == "select":
        if not text.isdecimal() or not int(text[:6]) < len(one.options):
            raise ValueError("Choose one of the options.")
        return one.options[int(text[:6])][1]
    if one.kind == "number":
        if _INTEGER.fullmatch(text.strip()):
            return int(text)
        number = float(text) if len(text) <= SHOWN_CHARS else math.nan
        if not math.isfinite(number):
            raise ValueError("This must be a number.")
        return number
    return text


def _read_free(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise FormFaults({"answer": "This must be JSON."}) from None


def _fields(asked: Any) -> list[FormField]:
    found: list[FormField] = []
    for index, one in enumerate(asked[:MOST_FIELDS] if isinstance(asked, list) else ()):
        key = _text(one.get("key")) or _text(one.get("name")) if isinstance(one, dict) else ""
        if key and all(key != other.key for other in found):
            found.append(_field(f"f{index}", key, one))
    return found


def _field(name: str, key: str, one: Mapping[str, Any]) -> FormField:
    kind = _text(one.get("type"))
    options = [_option(each) for each in one["options"]] if isinstance(one.get("options"), list) else []
    return FormField(
        name=name,
        key=key,
        kind="number" if kind in _NUMBERS else kind if kind in _KINDS else "text",
        label=_text(one.get("label")) or key,
        help=_text(one.get("description")),
        required=one.get("required") is True,
        default=one.get("default"),
        options=options,
    )


def _option(each: Any) -> tuple[str, Any]:
    if isinstance(each, dict):
        value = each.get("value", each.get("label"))
        return _text(each.get("label")) or _text(value) or json.dumps(value), value
    return _text(each) or json.dumps(each), each


def _without_marks(document: Any) -> Any:
    if not isinstance(document, dict):
        return document
    return {key: value for key, value in document.items() if not key.startswith("_")}


def _pretty(document: Any) -> str:
    if document is None or document == {}:
        return ""
    if isinstance(document, str):
        return document[:SHOWN_CHARS]
    try:
        return json.dumps(document, indent=2, ensure_ascii=False)[:SHOWN_CHARS]
    except RecursionError:
        return "(nested too deep to be shown)"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
