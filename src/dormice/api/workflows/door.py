"""Who may use the workflow surface, for which project, and how it says no.

The contract's errors are `{"error", "error_type"}` (section 1.0). In local mode nobody needs a key, so only programs of this host may call:
neither another host by a name of its own (DNS rebinding), nor a page of a browser.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from dormice.api.http.admission import Admission
from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.errors import Fault, InvalidRequest
from dormice.api.http.operation import Answer, Handler, Method, Operation, Parameter
from dormice.api.http.places import NOBODY
from dormice.api.http.replies import Reply
from dormice.api.services import WorkflowServices
from dormice.domain.addresses import is_loopback
from dormice.domain.errors import (
    Conflict,
    DormiceError,
    Forbidden,
    ForeignProject,
    Invalid,
    MachineConflict,
    NotFound,
    RateLimited,
    Unauthenticated,
)
from dormice.engine.orders import Caller
from dormice.store.projects import Project

_STATUS: dict[type[DormiceError], tuple[int, str]] = {
    Unauthenticated: (401, "UNAUTHORIZED"),
    ForeignProject: (403, "PROJECT_ACCESS_FORBIDDEN"),
    Forbidden: (403, "FORBIDDEN"),
    NotFound: (404, "NOT_FOUND"),
    MachineConflict: (409, "INVALID_STATE"),
    Conflict: (409, "CONFLICT"),
    RateLimited: (429, "LIMIT_EXCEEDED"),
}


class WorkflowError(Struct, kw_only=True):
    """What went wrong, for people, and its kind, for programs."""

    error: str
    error_type: str


_PROJECT = "project_id"

Served = Callable[[Call, Caller, Project], Awaitable[ASGIApp]]
ServedCaller = Callable[[Call, Caller], Awaitable[ASGIApp]]


class Door:
    """Wraps handlers of this surface."""

    def __init__(self, services: WorkflowServices, admission: Admission) -> None:
        self._services = services
        self._admission = admission

    def project(self, serve: Served) -> Handler:
        """Return a handler that needs a project."""

        async def handle(call: Call) -> ASGIApp:
            caller = await self._admit(call)
            wanted = call.header("X-Project-ID") or call.header("Project-ID") or call.query.get(_PROJECT)
            make = self._services.local is not None
            project = await self._services.registry.project(caller, wanted or None, make=make)
            return await serve(call, caller, project)

        return answered(handle)

    def organization(self, serve: ServedCaller) -> Handler:
        """Return a handler that needs to know who calls, and no project."""

        async def handle(call: Call) -> ASGIApp:
            return await serve(call, await self._admit(call))

        return answered(handle)

    async def let_in(self, call: Call) -> None:
        """Let somebody in who needs no key. Raises Forbidden in local mode, when it is no program of this host; Unavailable."""
        if self._services.local is not None:
            check_local(call)
        await self._admission.enter(call.scope, NOBODY)

    def route(
        self,
        tag: str,
        identity: str,
        method: Method,
        path: str,
        summary: str,
        serve: Served,
        answer: type[msgspec.Struct] | str | None = None,
        *,
        body: type[msgspec.Struct] | None = None,
        description: str = "",
        parameters: Sequence[Parameter] = (),
        many: bool = False,
        exact: bool = False,
    ) -> Operation:
        """Return a route that needs a project; `answer` as in `operation`. `exact`: it refuses query parameters that it does not have.

        Routes of the contract take what programs send beyond it; those that we have added need not.
        """
        if exact:
            serve = _exact(serve, [one.name for one in parameters if one.place == "query"])
        return operation(
            tag,
            identity,
            method,
            path,
            summary,
            self.project(serve),
            answer,
            body=body,
            description=description,
            parameters=parameters,
            many=many,
        )

    async def _admit(self, call: Call) -> Caller:
        local = self._services.local
        if local is None or call.header("Authorization") is not None or call.header("x-api-key") is not None:
            call.caller = await self._admission.admit(call.scope, call.headers, project_keys=True)
            return call.caller
        check_local(call)
        call.caller = local
        call.scope["state"]["caller"] = local
        await self._admission.enter(call.scope, local.organization_id)
        return local


def operation(
    tag: str,
    identity: str,
    method: Method,
    path: str,
    summary: str,
    handle: Handler,
    answer: type[msgspec.Struct] | str | None = None,
    *,
    body: type[msgspec.Struct] | None = None,
    description: str = "",
    parameters: Sequence[Parameter] = (),
    many: bool = False,
    shown: str = "",
    guarded: bool = True,
) -> Operation:
    """Return a route; `answer` is its body's type (`many`: an array of such) or media type, None for an empty body."""
    if isinstance(answer, str):
        good = Answer("As it comes.", media_types=(answer,))
    else:
        good = Answer("Done; the body is empty.") if answer is None else Answer("Done.", answer, many=many)
    return Operation(
        id=identity,
        method=method,
        path=path,
        tag=tag,
        summary=summary,
        description=description,
        handle=handle,
        parameters=parameters,
        body=body,
        answers={200: good},
        errors=frozenset({404, 409}),
        public=True,  # to the router: the door asks who comes
        shown=shown,
        guarded=guarded,
    )


def _exact(serve: Served, names: Sequence[str]) -> Served:
    """Return a handler that leaves no query parameter out of account."""

    async def handle(call: Call, caller: Caller, project: Project) -> ASGIApp:
        for name in call.query:
            if name not in names and name != _PROJECT:
                there_are = f"there are {', '.join(names)}" if names else "there is none"
                raise bad(f"{name[:64]!r} is no query parameter of this list: {there_are}", f"query.{name[:64]}")
        return await serve(call, caller, project)

    return handle


def check_local(call: Call) -> None:
    """Raise Forbidden unless a program of this host calls us by a name of this host."""
    host, origin = call.header("Host") or "", call.header("Origin")
    if not is_loopback(_host_of(f"//{host}")):
        raise Forbidden("local mode answers to localhost only: the Host header names something else")
    if origin is not None and not is_loopback(_host_of(origin)):
        raise Forbidden("local mode answers to programs of this host only: the Origin header names another place")


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # a bracket that is not closed
        return None


def answered(handle: Handler) -> Handler:
    """Return a handler whose refusals have the contract's shape."""

    async def serve(call: Call) -> ASGIApp:
        try:
            return await handle(call)
        except DormiceError as error:
            return refusal(error)

    return serve


def refusal(error: DormiceError) -> Reply:
    """Return the answer that says no."""
    if isinstance(error, Invalid):
        status, kind = error.status, error.code or ("BAD_REQUEST" if error.status == 400 else "INVALID_INPUT")
    else:
        status, kind = next(
            (found for known, found in _STATUS.items() if isinstance(error, known)), (503, "UNAVAILABLE")
        )
    body = msgspec.json.encode(WorkflowError(error=error.message, error_type=kind))
    return Reply(body, status=status, headers=retry_after(error))


def retry_after(error: DormiceError) -> dict[str, str]:
    """Return the header that says when to come again, if that helps."""
    return {} if error.retry_after_ms is None else {"retry-after": str(-(-error.retry_after_ms // 1000))}


def empty() -> Reply:
    """Return the contract's answer without a body."""
    return Reply(b"")


def bad(message: str, location: str, kind: str = "BAD_REQUEST") -> InvalidRequest:
    """Return the error for a request whose form is right and whose meaning is wrong."""
    error = InvalidRequest([Fault(message, location)], status=400)
    error.code = kind
    return error
