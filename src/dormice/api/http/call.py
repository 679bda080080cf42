"""One request, as a route sees it: who calls, and what the path, the query and the headers say."""

from __future__ import annotations

import re
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from dormice.api.http.bodies import read_body
from dormice.api.http.errors import Fault, InvalidRequest
from dormice.api.http.replies import WHILE_VALID
from dormice.api.http.turnstile import Turnstile
from dormice.domain.ids import canonical_machine_id
from dormice.domain.limits import Limits
from dormice.engine.orders import Caller, Idempotency

if TYPE_CHECKING:
    from dormice.api.http.asgi import Receive, Scope

INT64_MAX = (1 << 63) - 1
_INTEGER = re.compile(r"-?[0-9]{1,4096}", re.ASCII)
_DIGITS = 19
_HOST = re.compile(r"([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{1,64}\])(:[0-9]{1,5})?", re.ASCII)
_PARAMETER = re.compile(r"\{(\w+)\*?\}")
_BOOLEANS = {"true": True, "false": False}


class Call:
    """A request. Accessors raise Invalid with the parameter's location when it is not what it must be."""

    __slots__ = ("caller", "headers", "limits", "path", "query", "receive", "scope", "turnstile")

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        headers: dict[bytes, bytes],
        limits: Limits,
        caller: Caller,
        turnstile: Turnstile,
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.headers = headers
        self.limits = limits
        self.caller = caller
        self.turnstile = turnstile
        self.path: dict[str, str] = scope["path_params"]
        query: bytes = scope["query_string"]
        self.query: dict[str, str] = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {}

    async def pause(self) -> None:
        """Let others go first, in the midst of a long answer."""
        await self.turnstile.step_back(self.caller.organization_id)

    def while_valid(self) -> AbstractAsyncContextManager[None]:
        """Cancel the block once the caller's key is revoked. Raises Unauthenticated then."""
        found: AbstractAsyncContextManager[None] = self.scope["state"].get(WHILE_VALID, nullcontext)()
        return found

    def note(self, **ids: str) -> None:
        """Have ids that only the answer tells stand in the request's line of the log."""
        self.scope["state"].update(ids)

    def header(self, name: str) -> str | None:
        """Return a header's value, None when it is absent or empty."""
        value = self.headers.get(name.lower().encode("latin-1"))
        return value.decode("latin-1") if value else None

    def origin(self) -> str:
        """Return `http://HOST`, as the client named this server; `https` where it came by TLS. Nobody but the client is told of it."""
        forwarded = (self.header("X-Forwarded-Proto") or "").partition(",")[0].strip().lower()
        secure = self.scope["scheme"] in ("https", "wss") or forwarded == "https"
        host = self.header("Host") or ""
        if not _HOST.fullmatch(host):
            name, port = self.scope.get("server") or ("localhost", None)
            host = f"[{name}]" if ":" in name else name
            host = host if port is None else f"{host}:{port}"
        return f"{'https' if secure else 'http'}://{host}"

    def websocket_origin(self) -> str:
        """Return the same for a WebSocket: `ws` or `wss`."""
        return f"ws{self.origin().removeprefix('http')}"

    def integer(self, name: str, *, default: int, maximum: int = INT64_MAX) -> int:
        """Return a query parameter as an integer from 0 to `maximum`; absent or empty is the default."""
        text = self.query.get(name)
        if not text:
            return default
        if not _INTEGER.fullmatch(text):
            raise _bad_query(name, f"{name} must be an integer")
        value = int(text) if len(text) <= _DIGITS else (-1 if text[0] == "-" else INT64_MAX + 1)
        if not 0 <= value <= maximum:
            raise _bad_query(name, f"{name} must be from 0 to {maximum}")
        return value

    def required_integer(self, name: str) -> int:
        """Return a query parameter as an integer of at least 0 that must be there."""
        if not self.query.get(name):
            raise _bad_query(name, f"{name} is required")
        return self.integer(name, default=0)

    def boolean(self, name: str) -> bool:
        """Return a query parameter that is `true` or `false`; absent is false."""
        text = self.query.get(name)
        if text is None:
            return False
        if text not in _BOOLEANS:
            raise _bad_query(name, f"{name} must be true or false")
        return _BOOLEANS[text]

    def wait_ms(self) -> int:
        """How long the answer may be held back."""
        return self.integer("wait_ms", default=0, maximum=self.limits.wait_ms)

    async def body(self, limit: int | None = None, *, end_bytes: int = 0) -> bytes:
        """Read the body, at most `limit` bytes (default: request_body_bytes). `end_bytes`: as `read_body` says."""
        most = self.limits.request_body_bytes if limit is None else limit
        return await read_body(self.scope, self.headers, self.receive, most, end_bytes=end_bytes)

    def idempotency(self, request: msgspec.Struct | None, *, required: bool = False) -> Idempotency | None:
        """Return the Idempotency-Key with its scope and the request in canonical bytes."""
        key = self.header("Idempotency-Key")
        if key is None:
            if required:
                raise _bad_key(
                    "the header Idempotency-Key is required: send a new one per request, the same on retries"
                )
            return None
        if len(key) > self.limits.idempotency_key_bytes:
            raise _bad_key(f"Idempotency-Key must have at most {self.limits.idempotency_key_bytes} bytes")
        canonical = b"" if request is None else msgspec.json.encode(request, order="sorted")
        return Idempotency(self._idempotency_scope(), key, canonical)

    def _idempotency_scope(self) -> str:
        """Method and path, the same however the path and a machine's id are written."""
        template: str = self.scope["path_template"]
        return f"{self.scope['method']} {_PARAMETER.sub(self._shown, template)}"

    def _shown(self, parameter: re.Match[str]) -> str:
        value = self.path[parameter[1]]
        return (canonical_machine_id(value) or value) if parameter[1] == "machine_id" else value


def _bad_query(name: str, message: str) -> InvalidRequest:
    return InvalidRequest([Fault(message, f"query.{name}")])


def _bad_key(message: str) -> InvalidRequest:
    return InvalidRequest([Fault(message, "header.Idempotency-Key")])
