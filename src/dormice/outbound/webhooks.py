"""Requests to webhooks: where they may go, and what is heard of the answer."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dormice.domain.errors import Invalid
from dormice.outbound.connections import Connections, LookUp, look_up
from dormice.outbound.http_connection import HttpConnection, Reply
from dormice.outbound.interface import Answer
from dormice.outbound.targets import Address, AllowList, UnusableUrl, forbidden, meanings, target_of

_CONNECTIONS_PER_ORIGIN: Final = 256
"""Never waited for: many organizations may have their webhooks at one provider, and one must not hold up another."""


@dataclass(frozen=True)
class WebhookPolicy:
    """Where webhooks may be, and how long and how much they are listened to.

    Public addresses always; private ones (loopback too) only where `allowed` names their network (`10.0.0.0/8`) or the host by which they are
    called (`hooks.internal`, which covers what is below it); link-local and metadata addresses never. `timeout_seconds` (above 0) is
    for a whole request, `answer_bytes` (above 0) for an answer with its head. Raises ValueError for an entry that is neither network
    nor name.
    """

    allowed: tuple[str, ...] = ()
    timeout_seconds: float = 10.0
    answer_bytes: int = 64 * 1024
    listed: AllowList = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "listed", AllowList.read(self.allowed))

    def allows(self, host: str, address: Address) -> bool:
        """Whether `address` may be connected to for a URL with `host` in it."""
        if forbidden(address):
            return False
        public = all(each.is_global for each in meanings(address))
        return public or self.listed.has_name(host) or self.listed.has_address(address)


def check_webhook_url(url: str, policy: WebhookPolicy) -> None:
    """Check the form of a webhook's URL; nothing is looked up. Raises Invalid (422)."""
    try:
        target = target_of(url)
    except UnusableUrl as problem:
        raise _invalid(str(problem)) from None
    local = target.host == "localhost" or target.host.endswith(".localhost")
    if target.literal is not None and not policy.allows(target.host, target.literal):
        raise _invalid(
            f"{target.host} is an address that this server does not send to: give a public one, or have the operator allow it (webhook_allow)"
        )
    if local and not policy.allowed:
        raise _invalid(f"{target.host} is this server's own host: give a public address")


class WebhookSender:
    """Sends to webhooks. For one event loop; it starts no tasks, and an unused one holds nothing open for long."""

    def __init__(self, policy: WebhookPolicy, *, look_up: LookUp = look_up) -> None:
        self._policy = policy
        self._connections = Connections(policy, look_up, per_origin=_CONNECTIONS_PER_ORIGIN)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a JSON document, at most once, and return what was answered. Raises nothing but cancellation.

        A status line counts, even if the rest of the answer is cut off, too long or too slow. Redirects are not followed.
        """
        try:
            target = target_of(url)
        except UnusableUrl as problem:  # the rules may be others than when it was recorded
            return Answer(None, str(problem))
        query = f"?{target.query}" if target.query else ""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = (
            f"POST {target.path or '/'}{query} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: dormice\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"{lines}\r\n"
        ).encode("ascii")
        connection: HttpConnection | None = None
        reply: Reply | None
        seconds = self._policy.timeout_seconds
        try:
            async with asyncio.timeout(seconds), self._connections.borrow(target) as connection:
                reply = await connection.ask(head, body)
        except OSError as error:  # TimeoutError is one
            reply = connection.reply if connection is not None and connection.asked else None
            if reply is None or reply.status is None:
                return Answer(None, _reason(error, seconds))
        if reply.status is None:
            return Answer(None, "the connection ended without an answer")
        return Answer(
            reply.status, f"redirects are not followed ({reply.status})" if 300 <= reply.status < 400 else None
        )

    async def close(self) -> None:
        """Close all connections; requests under way end without an answer."""
        await self._connections.close()


def _reason(error: OSError, seconds: float) -> str:
    match error:
        case PermissionError():
            return str(error)
        case TimeoutError():
            return f"no answer within {seconds:g} s"
        case ConnectionRefusedError():
            return "nobody listens there"
        case socket.gaierror():
            return "the name was not found"
        case ssl.SSLError():
            return f"TLS failed: {error.reason}"
        case _:
            return f"the connection failed: {error.strerror or type(error).__name__}"


def _invalid(problem: str) -> Invalid:
    return Invalid(f"url: {problem}", location="body.url")
