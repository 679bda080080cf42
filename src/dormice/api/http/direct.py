"""The short way from a request to its handler.

The framework's way takes longer than all that a short request does in here. It is left to what fits no operation: what
is not found, a method that is not allowed, OPTIONS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from dormice.api.http.admission import Admission
from dormice.api.http.call import Call
from dormice.api.http.errors import describe_and_log
from dormice.api.http.operation import NOBODY, Operation
from dormice.api.http.replies import Reply
from dormice.api.http.websocket import Disconnected, Socket, WebSocket
from dormice.domain.errors import NotFound
from dormice.domain.limits import Limits

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

_WEBSOCKET = "websocket"
_INTERNAL_ERROR = 1011


class Direct:
    """An ASGI application: operations itself, everything else by another one."""

    def __init__(
        self,
        operations: Sequence[Operation],
        sockets: Sequence[Socket],
        limits: Limits,
        admission: Admission,
        otherwise: ASGIApp,
    ) -> None:
        self._limits = limits
        self._admission = admission
        self._otherwise = otherwise
        self._tree: dict[str | None, Any] = {}
        """Path segments to subtrees, a parameter's under None; at the leaves methods to operations, under the empty segment, or under `*` for a
        parameter that takes all the rest of the path."""
        for operation in operations:
            self._grow(operation.path, operation.method, operation)
        for socket in sockets:
            self._grow(socket.path, _WEBSOCKET, socket)

    def _grow(self, path: str, method: str, served: Operation | Socket) -> None:
        node = self._tree
        names = []
        leaf = ""
        for segment in path.split("/")[1:]:
            name = segment.strip("{}") if segment.startswith("{") else None
            if name is not None and name.endswith("*"):
                names.append(name[:-1])
                leaf = "*"
                break
            if name is not None:
                names.append(name)
            node = node.setdefault(segment if name is None else None, {})
        node.setdefault(leaf, {})[method] = served, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        raw: dict[str, Any] = scope  # type: ignore[assignment] # a TypedDict
        if raw["type"] == _WEBSOCKET:
            await self._serve_socket(raw, receive, send)
            return
        found = self._find(raw)
        if found is None:
            await self._otherwise(scope, receive, send)
            return
        operation, raw["path_params"] = found
        raw["path_template"] = operation.path
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            reply = await self._serve(operation, scope, receive)
            await reply(scope, receive, note_start)
        except Exception as error:  # whatever it is, it is answered: nobody else does
            if started:
                raise
            answer = describe_and_log(scope, error)
            reply = Reply(
                answer.body, status=answer.status, media_type=answer.media_type.encode(), headers=answer.headers
            )
            await reply(scope, receive, send)

    async def _serve_socket(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        websocket = WebSocket(receive, send)
        try:
            found = self._find(scope)
            if found is None:
                raise NotFound("no such path for a WebSocket")
            socket, scope["path_params"] = found
            scope["path_template"] = socket.path
            headers = dict(scope["headers"])
            call = Call(scope, receive, headers, self._limits, NOBODY, self._admission.turnstile)  # type: ignore[arg-type]
            await socket.handle(call, websocket)
        except (Disconnected, OSError):
            return  # the client has gone, or does not answer
        except Exception as error:  # noqa: BLE001 - not swallowed: it is answered, and a bug is logged
            answer = describe_and_log(scope, error)  # type: ignore[arg-type] # a Scope is a dict
            if websocket.accepted:
                await websocket.close(_INTERNAL_ERROR)
            else:
                await websocket.refuse(answer)

    async def _serve(self, operation: Operation, scope: Scope, receive: Receive) -> ASGIApp:
        headers = dict(scope["headers"])
        caller = NOBODY if operation.public else await self._admission.admit(scope, headers)
        return await operation.handle(Call(scope, receive, headers, self._limits, caller, self._admission.turnstile))

    def _find(self, scope: dict[str, Any]) -> tuple[Any, dict[str, str]] | None:
        node = self._tree
        values = []
        segments = _segments(scope)
        leaf = ""
        for index, segment in enumerate(segments):
            below = node.get(segment) if segment else None
            if below is None:
                below = node.get(None) if segment else None
                values.append(segment)
            if below is None:
                if "*" not in node:
                    return None
                values[-1] = "/".join(segments[index:])
                leaf = "*"
                break
            node = below
        found = node.get(leaf, {}).get(_WEBSOCKET if scope["type"] == _WEBSOCKET else scope["method"])
        if found is None:
            return None
        operation, names = found
        return operation, dict(zip(names, values, strict=True))


def _segments(scope: dict[str, Any]) -> list[str]:
    """The parts of the path. A slash that was quoted is none between parts."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%2F" not in raw and b"%2f" not in raw:
        path: str = scope["path"]
        return path.split("/")[1:]
    return [unquote(part) for part in raw.partition(b"?")[0].decode("latin-1").split("/")[1:]]
