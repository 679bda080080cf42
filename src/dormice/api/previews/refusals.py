"""Answers that are ours, not the program's: plain words, and a header that tells them from those of the program."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from dormice.api.http.errors import CODED_STATUS
from dormice.api.http.replies import Reply
from dormice.api.previews.exchange import PortFailed, PortSlow
from dormice.api.previews.headers import BadHead
from dormice.domain.errors import Conflict, DormiceError, Invalid, NotFound, Unavailable
from dormice.engine.port_connections import PortRefused
from dormice.engine.port_tls import NoTls
from dormice.store.interface import StoreUnavailable

if TYPE_CHECKING:
    from dormice.api.http.asgi import Send

TEXT = b"text/plain; charset=utf-8"


def refusal(error: Exception) -> Reply:
    """Return the answer to a request that is not passed on, or that nothing came of."""
    headers = {"cache-control": "no-store"}
    match error:
        case BadHead():
            status, word, text = 400, "bad_request", f"The request cannot be passed on: {error}."
        case PortRefused() | NoTls():
            status, word, text = 502, "port_refused", f"Bad gateway: {error.message}."
        case PortFailed():
            status, word, text = 502, "port_failed", f"Bad gateway: what listens on the port failed: {error}."
        case PortSlow():
            status, word, text = 504, "port_slow", f"Gateway timeout: what listens on the port is slow: {error}."
        case NotFound():
            status, word, text = 404, "not_found", f"Not found: {error.message}."
        case Conflict():
            status, word, text = 502, "machine_failed", f"Bad gateway: {error.message}."
        case StoreUnavailable():
            status, word, text = 503, "unavailable", f"Service unavailable: {error.message}."
            headers["retry-after"] = "1"
        case Unavailable():
            status, word, text = 504, "machine_unavailable", f"Gateway timeout: {error.message}."
            headers["retry-after"] = "1"
        case Invalid():
            status, word, text = error.status, "bad_request", error.message
        case DormiceError():
            status = next(code for kind, code in CODED_STATUS.items() if isinstance(error, kind))
            word, text = error.code.lower(), f"{HTTPStatus(status).phrase}: {error.message}."
            if error.retryable:
                headers["retry-after"] = "1"
            if status == HTTPStatus.UNAUTHORIZED:
                headers["www-authenticate"] = 'Bearer realm="dormice"'
        case _:
            raise error
    headers["x-dormice-preview-error"] = word
    return Reply(f"{text}\n".encode(), status=status, media_type=TEXT, headers=headers)


async def refuse_socket(reply: Reply, send: Send) -> None:
    """Answer the handshake of a WebSocket with it."""
    start: Any = {"type": "websocket.http.response.start", "status": reply.status, "headers": reply.headers}
    body: Any = {"type": "websocket.http.response.body", "body": reply.body}
    await send(start)
    await send(body)
