"""From a request to its handler: by the segments of its path, then by its method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec

from dormice.api.http.admission import Admission
from dormice.api.http.call import Call
from dormice.api.http.errors import HttpProblem, describe_and_log
from dormice.api.http.operation import Operation
from dormice.api.http.replies import Reply
from dormice.api.http.websocket import Disconnected, Socket, WebSocket
from dormice.domain.errors import NotFound
from dormice.domain.limits import Limits
from dormice.engine.orders import Caller

if TYPE_CHECKING:
    from dormice.api.http.asgi import ASGIApp, Message, Receive, Scope, Send

_WEBSOCKET = "websocket"
_INTERNAL_ERROR = 1011
_NOBODY = Caller(organization_id="", key_id="", admin=False)
_Leaf = dict[str | None, tuple[Any, list[str]]]
"""By method, a WebSocket's is None, what is served and the names of its path's parameters."""


@dataclass(slots=True)
class _Node:
    """The paths that begin alike."""

    below: dict[str, _Node] = field(default_factory=dict)
    """By their next segment."""
    parameter: _Node | None = None
    """Those whose next segment may be anything."""
    here: _Leaf = field(default_factory=dict)
    """What is served where they end."""
    rest: _Leaf = field(default_factory=dict)
    """What is served under all the rest of a path, as its last parameter. There is nothing else below then."""


class Router:
    """An ASGI application: all operations and WebSockets."""

    def __init__(
        self, operations: Sequence[Operation], sockets: Sequence[Socket], limits: Limits, admission: Admission
    ) -> None:
        self._limits = limits
        self._admission = admission
        self._tree = _Node()
        for operation in operations:
            self._grow(operation.path, operation.method, operation)
        for socket in sockets:
            self._grow(socket.path, None, socket)

    def _grow(self, path: str, method: str | None, served: Operation | Socket) -> None:
        node = self._tree
        names: list[str] = []
        for segment in path.split("/")[1:]:
            if not segment.startswith("{"):
                node = node.below.setdefault(segment, _Node())
                continue
            names.append(segment.strip("{*}"))
            if segment.endswith("*}"):
                node.rest[method] = served, names
                return
            node.parameter = node.parameter or _Node()
            node = node.parameter
        node.here[method] = served, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == _WEBSOCKET:
            await self._serve_socket(scope, receive, send)
            return
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            reply = await self._serve(scope, receive)
            await reply(scope, receive, note_start)
        except Exception as error:  # whatever it is, it is answered: nobody else does
            if started:
                raise
            answer = describe_and_log(scope, error)
            reply = Reply(
                answer.body, status=answer.status, media_type=answer.media_type.encode(), headers=answer.headers
            )
            await reply(scope, receive, send)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(receive, send)
        try:
            leaf, values = self._find(_segments(scope), None)
            if None not in leaf:
                raise NotFound("no such path for a WebSocket")
            socket: Socket = _found(scope, leaf[None], values)
            headers = dict(scope["headers"])
            call = Call(scope, receive, headers, self._limits, _NOBODY, self._admission.turnstile)
            await socket.handle(call, websocket)
        except (Disconnected, OSError):
            return  # the client has gone, or does not answer
        except Exception as error:  # noqa: BLE001 - not swallowed: it is answered, and a bug is logged
            answer = describe_and_log(scope, error)
            if websocket.accepted:
                await websocket.close(_INTERNAL_ERROR)
            else:
                await websocket.refuse(answer)

    async def _serve(self, scope: Scope, receive: Receive) -> ASGIApp:
        method: str = scope["method"]
        segments = _segments(scope)
        leaf, values = self._find(segments, method)
        if method not in leaf:
            leaf, values = self._find(_without_empty(segments), method)
        if method not in leaf:
            return _unserved(scope, leaf)
        operation: Operation = _found(scope, leaf[method], values)
        headers = dict(scope["headers"])
        caller = _NOBODY if operation.public else await self._admission.admit(scope, headers)
        return await operation.handle(Call(scope, receive, headers, self._limits, caller, self._admission.turnstile))

    def _find(self, segments: Sequence[str], method: str | None) -> tuple[_Leaf, tuple[str, ...]]:
        """Return what is served at a path, empty if nothing is, and its parameters' values.

        A segment that a route has by name goes before a parameter; it is taken for the parameter where the route leads no further, or
        takes other methods: people name things as we name routes.
        """
        node, index = self._tree, 0
        values: tuple[str, ...] = ()
        others: list[tuple[_Node, int, tuple[str, ...]]] = []
        first: _Leaf = {}
        while True:
            leaf, reached = node.here, values
            if index < len(segments):
                segment = segments[index]
                below = node.below.get(segment)
                if node.parameter is not None and segment:
                    others.append((node.parameter, index + 1, (*values, segment)))
                if below is not None:
                    node, index = below, index + 1
                    continue
                leaf, reached = node.rest, (*values, "/".join(segments[index:]))
            if method in leaf:
                return leaf, reached
            first = first or leaf
            if not others:
                return first, ()
            node, index, values = others.pop()


def _found(scope: Scope, served: tuple[Any, list[str]], values: Sequence[str]) -> Any:
    serving, names = served
    scope["path_params"] = dict(zip(names, values, strict=True))
    scope["path_template"] = serving.path
    return serving


def _segments(scope: Scope) -> list[str]:
    """The parts of the path. A slash that was quoted is none between parts."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%2F" not in raw and b"%2f" not in raw:
        path: str = scope["path"]
        return path.split("/")[1:]
    return [unquote(part) for part in raw.partition(b"?")[0].decode("latin-1").split("/")[1:]]


def _without_empty(segments: Sequence[str]) -> list[str]:
    """The same path without slashes too many, as clients write them who put a path together from parts."""
    return [segment for segment in segments if segment] or [""]


def _unserved(scope: Scope, leaf: _Leaf) -> Reply:
    """Answer OPTIONS. Raises NotFound, HttpProblem (405)."""
    methods = [method for method in leaf if method is not None]
    if not methods:
        raise NotFound("no such route: GET /openapi.json and GET /api-docs/openapi.json list all")
    scope["path_template"] = leaf[methods[0]][0].path
    if scope["method"] == "OPTIONS":
        return Reply(msgspec.json.encode({"allow": methods}), headers={"allow": ", ".join(methods)})
    told = "the route does not take this method; the Allow header says which it takes"
    raise HttpProblem(told, status=405, headers={"allow": ", ".join(["OPTIONS", *methods])})
