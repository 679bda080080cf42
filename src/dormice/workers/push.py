"""Pushing runs to workers of the foreign SDK, each of which has a small HTTP server.

The wire has no fence and no idempotency key, so the answer says what is *certain*:

- REFUSED: nothing was sent. The address is forbidden or was not found, nobody listens, TLS failed, or time was up
  before there was a free connection.
- AMBIGUOUS: something was sent and no status line came back. The run may have been accepted.
- all others: the worker has answered. Its status line decides, even if the rest of the answer is cut off, too long or
  too slow.

A kept connection may end at the very moment it is used again. An end that has arrived is seen before anything is sent
(`HttpConnection.reusable`), and a fresh connection is made. One that arrives later cannot be told from a worker that
died after it had read the request (what the kernel has got acknowledged proves nothing: an acknowledgment is held
back for some time, and a reset carries none), so that is AMBIGUOUS, and nothing is ever sent twice. It is rare,
because connections are dropped before common servers would.

Redirects are not followed. What is sent to proxies by the environment is sent directly.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from dormice.crash_points import CrashPoint, reached_once_sent
from dormice.domain.errors import Invalid
from dormice.outbound.connections import Connections, LookUp, look_up
from dormice.outbound.http_connection import HttpConnection, Reply
from dormice.workers.interface import CancelAnswer, PushAnswer
from dormice.workers.push_rules import PushPolicy, check_push_url, push_target

__all__ = ["CancelAnswer", "PushAnswer", "PushClient", "PushPolicy", "check_push_url"]

_log = logging.getLogger(__name__)

_GATEWAY_GAVE_UP: Final = frozenset({502, 504, 520, 524})
"""A proxy's word that it has no answer of the worker; the worker itself never says so."""


class _Health(msgspec.Struct):
    """What a worker says of itself (contract `workflows-api`, section 3.2)."""

    current_executions: int | None = None


_HEALTH = msgspec.json.Decoder(_Health)


class PushClient:
    """Calls workers. For one event loop; it starts no tasks, and an unused one holds nothing open for long."""

    def __init__(self, policy: PushPolicy, *, look_up: LookUp = look_up) -> None:
        self._policy = policy
        self._connections = Connections(policy, look_up)

    async def execute(self, url: str, worker_id: str, body: bytes) -> PushAnswer:
        """Offer a run (`body` is its JSON) to the worker at `url`, at most once. Raises nothing but cancellation."""
        reply = await self._post(url, "/execute", worker_id, body, self._policy.timeout_seconds)
        return PushAnswer.REFUSED if reply is None else _push_answer(reply)

    async def cancel(self, url: str, worker_id: str, run_id: str) -> CancelAnswer:
        """Ask the worker at `url` to cancel a run. Raises nothing but cancellation."""
        reply = await self._post(url, f"/cancel/{run_id}", worker_id, b"", self._policy.cancel_timeout_seconds)
        match reply and reply.status:
            case 200:
                return CancelAnswer.REQUESTED
            case 404:
                return CancelAnswer.UNKNOWN
            case _:
                return CancelAnswer.FAILED

    async def listens(self, url: str, worker_id: str) -> bool:
        """Whether anybody may listen at the address of a worker: False only when its host says that nobody does."""
        try:
            async with asyncio.timeout(self._policy.timeout_seconds), self._connections.borrow(push_target(url)):
                return True
        except ConnectionRefusedError:
            return False
        except (OSError, Invalid) as error:
            _log.info("whether worker %s listens is not known: %s", worker_id, error)
            return True

    async def held(self, url: str, worker_id: str) -> int | None:
        """Ask a worker how many runs it has."""
        reply = await self._ask("GET", url, "/health", worker_id, b"", self._policy.timeout_seconds)
        if reply is None or reply.status != 200:
            return None
        try:
            return _HEALTH.decode(reply.body).current_executions
        except msgspec.MsgspecError:
            return None

    async def close(self) -> None:
        """Close all connections: calls under way end as AMBIGUOUS or FAILED, later ones as REFUSED or FAILED."""
        await self._connections.close()

    async def _post(self, url: str, path: str, worker_id: str, body: bytes, seconds: float) -> Reply | None:
        return await self._ask("POST", url, path, worker_id, body, seconds)

    async def _ask(self, method: str, url: str, path: str, worker_id: str, body: bytes, seconds: float) -> Reply | None:
        """Send one request; None when nothing of it was sent."""
        try:
            target = push_target(url)
        except Invalid as error:
            _log.info("nothing is pushed to worker %s: %s", worker_id, error.message)
            return None
        content_type = "Content-Type: application/json\r\n" if body else ""  # some servers insist on a body then
        head = (
            f"{method} {target.path}{path} HTTP/1.1\r\nHost: {target.authority}\r\nX-Worker-ID: {worker_id}\r\n"
            f"{content_type}Content-Length: {len(body)}\r\n\r\n"
        ).encode("ascii")
        connection: HttpConnection | None = None
        try:
            async with asyncio.timeout(seconds), self._connections.borrow(target) as connection:
                if body:  # a run, which leaves in this turn of the loop
                    reached_once_sent(CrashPoint.PUSH_SENT)
                return await connection.ask(head, body)
        except OSError as error:  # TimeoutError is one
            reply = connection.reply if connection is not None and connection.asked else None
            level = logging.DEBUG if isinstance(error, ConnectionRefusedError) else logging.INFO  # it is tried again
            _log.log(level, "worker %s at %s: %s", worker_id, target.origin, str(error) or f"no answer in {seconds} s")
            return reply


def _push_answer(reply: Reply) -> PushAnswer:
    if reply.status is None or reply.status in _GATEWAY_GAVE_UP:
        return PushAnswer.AMBIGUOUS
    if reply.status < 300:
        return PushAnswer.ACCEPTED
    if reply.status == 429:
        return PushAnswer.FULL
    if reply.status == 400 and b"mismatch" in reply.body.lower():
        return PushAnswer.MISMATCH
    return PushAnswer.REJECTED
