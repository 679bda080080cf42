"""The reverse proxy: serves what is addressed to a preview from the port behind it, and leaves everything else to the API."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h11

from dormice.api.http.admission import Admission
from dormice.api.http.errors import describe_and_log
from dormice.api.http.replies import CUT, Reply
from dormice.api.http.websocket import POLICY_VIOLATION
from dormice.api.previews.addresses import PREFIX, Target
from dormice.api.previews.exchange import Exchange, PortFailed, PortSlow
from dormice.api.previews.gate import Admitted, Gate
from dormice.api.previews.headers import BadHead, Headers, body_framing, own_cookie, own_tokens, towards_the_port
from dormice.api.previews.refusals import TEXT, refusal, refuse_socket
from dormice.api.previews.socket_exchange import SocketExchange
from dormice.api.services import PreviewServices, Services
from dormice.domain.errors import DormiceError, Unauthenticated

if TYPE_CHECKING:
    from dormice.api.http.asgi import ASGIApp, Message, Receive, Scope, Send

ROUTE = f"{PREFIX}{{preview_id}}"
_SECOND_US = 1_000_000
_WEBSOCKET = "websocket"
_BEGINNINGS = frozenset({"http.response.start", "websocket.accept"})


class PreviewProxy:
    """An ASGI application around another."""

    def __init__(self, services: Services, previews: PreviewServices, admission: Admission, otherwise: ASGIApp) -> None:
        self._previews = previews.previews
        self._addresses = previews.addresses
        self._now = previews.now
        self._keys = services.keys
        self._gate = Gate(previews.previews, services.keys, services.limits.key_max_chars)
        self._turnstile = admission.turnstile
        self._places = admission.places
        self._patience = services.limits.preview_answer_ms / 1000
        self._most_bytes = services.limits.websocket_message_bytes
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        target = self._addresses.target(scope)
        if target is None:
            await self._otherwise(scope, receive, send)
            return
        scope["path_template"] = ROUTE
        # What lies below may be a secret of the program's.
        scope["state"]["shown_path"] = f"{PREFIX}{target.preview_id}"
        started = over = False

        async def note_start(message: Message) -> None:
            nonlocal started, over
            started = started or message["type"] in _BEGINNINGS
            over = message["type"] == "websocket.close"
            await send(message)

        try:
            reply = await self._serve(scope, target, receive, note_start)
        except Unauthenticated as error:
            if over:
                return
            if started:  # his key was revoked meanwhile
                await _hang_up(scope, receive, send, error.message)
                return
            reply = refusal(error)
        except (DormiceError, PortFailed, PortSlow, BadHead) as error:
            reply = refusal(error)
        except Exception as error:  # a bug: it is answered, and logged
            if started:
                raise
            answer = describe_and_log(scope, error)
            reply = Reply(answer.body, status=answer.status, media_type=answer.media_type.encode())
        if reply is None:
            return
        if scope["type"] == _WEBSOCKET:
            await refuse_socket(reply, send)
        else:
            await reply(scope, receive, send)

    async def _serve(self, scope: Scope, target: Target, receive: Receive, send: Send) -> Reply | None:
        ends = self._previews.connections.ends
        preview = await self._previews.find(target.preview_id)
        scope["state"]["machine_id"] = preview.machine_id
        await self._turnstile.enter(preview.organization_id)
        method = "" if scope["type"] == _WEBSOCKET else scope["method"]
        headers: Headers = scope["headers"]
        tokens, query = own_tokens(scope["query_string"])
        admitted = await self._gate.admit(preview, target, method, headers, tokens)
        if (tokens or not target.path) and method in ("GET", "HEAD"):
            return self._redirect(target, query, admitted)
        request, has_body = _request(scope, target, query, headers, admitted)
        self._places.take(scope, preview.organization_id)  # not before: whoever is let in nowhere takes nobody's
        async with self._keys.while_valid(admitted.key_id), self._previews.request(preview, ends) as place:
            if scope["type"] == _WEBSOCKET:
                socket = SocketExchange(
                    place,
                    target,
                    request,
                    scope["subprotocols"],
                    most_bytes=self._most_bytes,
                    patience_seconds=self._patience,
                )
                return await socket.run(receive, send)
            exchange = Exchange(place, target, request, has_body=has_body, patience_seconds=self._patience)
            await exchange.run(scope, receive, send)
        return None

    def _redirect(self, target: Target, query: bytes, admitted: Admitted) -> Reply:
        """To the address without a token, which is kept in a cookie from now on; with the slash that relative links need."""
        where = f"{target.origin if not target.prefix else target.prefix}{(target.path or b'/').decode('latin-1')}"
        headers = {
            "location": where + (f"?{query.decode('latin-1')}" if query else ""),
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
        }
        if admitted.token:
            seconds = max(1, (admitted.token_expires_at - self._now()) // _SECOND_US)
            headers["set-cookie"] = own_cookie(admitted.token, target, seconds).decode("latin-1")
        return Reply(b"moved\n", status=303, media_type=TEXT, headers=headers)


async def _hang_up(scope: Scope, receive: Receive, send: Send, why: str) -> None:
    """End what the client has begun to get."""
    if scope["type"] == _WEBSOCKET:
        close: Any = {"type": "websocket.close", "code": POLICY_VIOLATION, "reason": why}
        with suppress(OSError):  # he is gone
            await send(close)
        return
    scope["state"][CUT]()
    while (await receive())["type"] != "http.disconnect":
        pass


def _request(
    scope: Scope, target: Target, query: bytes, headers: Headers, admitted: Admitted
) -> tuple[h11.Request, bool]:
    """The request as it goes on. Raises BadHead."""
    if sum(name == b"host" for name, _ in headers) != 1:
        raise BadHead("there must be one Host header")
    if scope["method"] == "CONNECT":
        raise BadHead("CONNECT is not for previews")
    framing = body_framing(headers)
    passed = towards_the_port(
        headers,
        target,
        client=scope["client"][0] if scope.get("client") else "",
        request_id=scope["state"].get("request_id", ""),
        withheld=admitted.withheld,
    )
    where = (target.path or b"/") + (b"?" + query if query else b"")
    try:
        return h11.Request(method=scope["method"], target=where, headers=[*passed, *framing]), bool(
            framing and framing != [(b"content-length", b"0")]
        )
    except h11.LocalProtocolError as error:
        raise BadHead(str(error)) from None
