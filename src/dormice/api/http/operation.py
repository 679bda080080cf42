"""A route, declared once: the router, the OpenAPI document and the reference are all made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call

Schema = Mapping[str, Any]
Handler = Callable[[Call], Awaitable[ASGIApp]]
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter or header."""

    name: str
    place: str
    """`query` or `header`."""
    schema: Schema
    description: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers when all is well: JSON of a Struct, or another media type."""

    description: str
    body: type[msgspec.Struct] | None = None
    media_types: Sequence[str] = ()
    many: bool = False
    """It is an array of such Structs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path."""

    id: str
    method: Method
    path: str
    tag: str
    summary: str
    handle: Handler
    answers: Mapping[int, Answer]
    description: str = ""
    parameters: Sequence[Parameter] = ()
    body: type[msgspec.Struct] | None = None
    body_required: bool = True
    raw_body: bool = False
    streamed_body: bool = False
    """The body is bytes, of any size."""
    errors: frozenset[int] = field(default_factory=frozenset)
    """Coded errors besides 401, 403, 429 and 503."""
    public: bool = False
    """Whether the router asks for no key."""
    shown: str = ""
    """The path as the document has it, where that is not what is routed."""
    guarded: bool = False
    """Whether it asks for one itself."""
