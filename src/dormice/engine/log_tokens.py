"""Tokens that read one execution's log for a short time, and are good for nothing else. They are signed, and kept nowhere."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

import msgspec

from dormice.domain.errors import Forbidden, Unauthenticated
from dormice.domain.execution import Execution, Micros
from dormice.domain.limits import Limits
from dormice.engine.clock import Clock
from dormice.engine.orders import Caller
from dormice.engine.tokens import Tokens
from dormice.store.interface import KeyStore

PURPOSE = "log"
PREFIX = "dlog_"
"""Then what the token says, in base64, a dot, and what a token for that is."""


class _Claims(msgspec.Struct, frozen=True, array_like=True):
    organization_id: str
    key_id: str
    machine_id: str
    execution_id: str


@dataclass(frozen=True, slots=True)
class LogGrant:
    """What a token is good for."""

    caller: Caller
    """Whoever had it made."""
    machine_id: str
    execution_id: str


class LogTokens:
    """Makes tokens, and says what one is good for."""

    def __init__(self, *, tokens: Tokens, keys: KeyStore, clock: Clock, limits: Limits) -> None:
        self._tokens = tokens
        self._keys = keys
        self._clock = clock
        self._limits = limits

    def mint(self, caller: Caller, execution: Execution) -> tuple[str, Micros]:
        """Return a token, which is a secret, and when it expires."""
        seconds = self._limits.log_token_seconds
        claims = _Claims(execution.organization_id, caller.key_id, execution.machine_id, execution.id)
        said = urlsafe_b64encode(msgspec.msgpack.encode(claims)).decode().rstrip("=")
        token = f"{PREFIX}{said}.{self._tokens.issue(PURPOSE, said, seconds=seconds)}"
        return token, self._clock.now() + seconds * 1_000_000

    async def grant(self, token: str, stream_id: str) -> LogGrant:
        """Return what the token is good for on that stream.

        Raises Unauthenticated for one that is not ours, has expired, or whose maker's key was revoked since; Forbidden for another stream.
        """
        claims = self._claims(token)
        key = None if claims is None else await self._keys.get(claims.key_id)
        if claims is None or key is None or key.revoked_at is not None:
            raise Unauthenticated(
                "the token is none of ours or has expired: make one with POST …/logs/token", code="AUTH_INVALID"
            )
        if stream_id != claims.execution_id:
            raise Forbidden("the token reads another stream: each execution needs its own")
        caller = Caller(claims.organization_id, claims.key_id, admin=False)
        return LogGrant(caller, claims.machine_id, claims.execution_id)

    def _claims(self, token: str) -> _Claims | None:
        """What the token says, if it was made here and its time is not over."""
        said, dot, signed = token.removeprefix(PREFIX).partition(".")
        if not (token.startswith(PREFIX) and dot and self._tokens.good(PURPOSE, said, signed)):
            return None
        try:
            plain = urlsafe_b64decode(said.encode("ascii") + b"=" * (-len(said) % 4))
            return msgspec.msgpack.decode(plain, type=_Claims)
        except (binascii.Error, UnicodeEncodeError, msgspec.DecodeError):
            return None
