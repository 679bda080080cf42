"""Around every request: its id and trace, its line in the log, its figures, and the end of its place among those served."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import TYPE_CHECKING, Any

from dormice.api.http.places import Places
from dormice.api.http.trace_context import trace_context
from dormice.api.services import Requests, RequestSpan, Tracer

if TYPE_CHECKING:
    from dormice.api.http.asgi import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("dormice.access")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_SHOWN_PATH = 256
_TERMINAL = re.compile(r"(term-[0-9a-f]{8})[0-9a-f]{32}")
"""Its whole id opens its stream, where a setting says so."""
_SHOWN_ID = 64
_HEADS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_SWITCHING_PROTOCOLS = 101


class Access:
    """An ASGI application around another. The log has no query, no header and no body: those may hold secrets."""

    def __init__(self, app: ASGIApp, *, places: Places, requests: Requests, tracer: Tracer | None) -> None:
        self._app = app
        self._places = places
        self._observer = requests
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        method: str = scope.setdefault("method", "GET")  # that of a WebSocket's handshake
        started = time.perf_counter()
        state: dict[str, Any] = scope.setdefault("state", {})
        request_id, span = self._begin(scope, state)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] in _HEADS:
                status = message.get("status", _SWITCHING_PROTOCOLS)
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            self._places.leave(scope)
            route, seconds = scope.get("path_template", ""), time.perf_counter() - started
            self._observer.served(method, route, status, seconds)
            if span is not None:
                span.end(route, status, state["request_id"])
            if _log.isEnabledFor(logging.INFO):
                _record(scope, state, status, seconds)

    def _begin(self, scope: Scope, state: dict[str, Any]) -> tuple[bytes, RequestSpan | None]:
        """Take from the head what says to what the request belongs."""
        offered, parents, vendors = b"", [], []
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                offered = offered or value
            elif name == b"traceparent":
                parents.append(value)
            elif name == b"tracestate":
                vendors.append(value)
        request_id = offered if _REQUEST_ID.fullmatch(offered) else secrets.token_hex(12).encode()
        state["request_id"] = request_id.decode()
        parent = trace_context(parents, vendors) if parents else None
        span = None
        if self._tracer is not None:
            span = self._tracer.begin(scope["method"], parent)
            state["trace_id"] = span.trace_id
        elif parent is not None:
            state["trace_id"] = parent.trace_id
        return request_id, span


def _record(scope: Scope, state: dict[str, Any], status: int, seconds: float) -> None:
    path = state.get("shown_path") or _TERMINAL.sub(r"\1…", scope["path"])
    method, path, milliseconds = scope["method"], path[:_SHOWN_PATH], round(seconds * 1000, 3)
    fields: dict[str, Any] = {
        "request_id": state["request_id"],
        "method": method,
        "path": path,
        "route": scope.get("path_template", ""),
        "status": status,
        "duration_ms": milliseconds,
    }
    if (trace_id := state.get("trace_id")) is not None:
        fields["trace_id"] = trace_id
    for name in ("machine_id", "execution_id"):
        if (value := state.get(name) or scope.get("path_params", {}).get(name)) is not None:
            fields[name] = value[:_SHOWN_ID]
    if (caller := state.get("caller")) is not None:
        fields["organization_id"] = caller.organization_id
        fields["key_id"] = caller.key_id
    message = f"{method} {ascii(path)[1:-1]} {status} {milliseconds} ms"
    # Not `_log.info`, which first walks the stack to find out who called it.
    _log.handle(_log.makeRecord(_log.name, logging.INFO, "", 0, message, (), None, extra=fields))
