"""A route, declared once: the router, the OpenAPI document and the reference are all made from it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from litestar import Request
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Method

from dormice.api.http.admission import Admission
from dormice.api.http.call import Call
from dormice.api.http.replies import Reply
from dormice.domain.limits import Limits
from dormice.engine.orders import Caller

Schema = Mapping[str, Any]
Handler = Callable[[Call], Awaitable[ASGIApp]]

_PARAMETER = re.compile(r"\{(\w+)\}")
_REST = re.compile(r"\{(\w+)\*\}")
NOBODY = Caller(organization_id="", key_id="", admin=False)


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


def route(operation: Operation, limits: Limits, admission: Admission) -> HTTPRouteHandler:
    """Return the operation as a handler of the framework."""

    async def serve(request: Request[Any, Any, Any]) -> ASGIApp:
        headers = dict(request.scope["headers"])
        caller = NOBODY if operation.public else await admission.admit(request.scope, headers)
        call = Call(request.scope, request.receive, headers, limits, caller, admission.turnstile)
        return await operation.handle(call)

    path = _template(operation.path)
    return HTTPRouteHandler(path, http_method=[operation.method], status_code=200, name=operation.id)(serve)


def options_route(path: str, methods: Sequence[str]) -> HTTPRouteHandler:
    """Return the answer to OPTIONS on a path; the framework's own has no body."""
    allow = ", ".join(methods)
    body = msgspec.json.encode({"allow": list(methods)})

    async def serve() -> ASGIApp:
        return Reply(body, headers={"allow": allow})

    return HTTPRouteHandler(_template(path), http_method=["OPTIONS"], status_code=200)(serve)


def _template(path: str) -> str:
    return _REST.sub(r"{\1:path}", _PARAMETER.sub(r"{\1:str}", path))
