"""Tokens that are made with an API key: whoever holds one is let in as if by that key, until the token expires or the key is revoked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dormice.domain.execution import Micros
from dormice.engine.tokens import Tokens


@dataclass(frozen=True, slots=True)
class KeyToken:
    """What a token says."""

    key_id: str
    """The key that it was made with."""
    expires_at: Micros
    """By the steady clock."""


class KeyTokens:
    """Makes and reads them: `KEY.TOKEN`, the id of the key and a token (tokens.py) for it and the subject."""

    def __init__(self, tokens: Tokens, is_valid: Callable[[str], Awaitable[bool]]) -> None:
        """`is_valid` says whether there is a key of an id that is not revoked."""
        self._tokens = tokens
        self._is_valid = is_valid

    def make(self, purpose: str, subject: str, key_id: str, *, seconds: int) -> str:
        """Return a token that counts for so long. A secret."""
        return f"{key_id}.{self._tokens.issue(purpose, _signed(subject, key_id), seconds=seconds)}"

    async def valid(self, purpose: str, subject: str, token: str) -> KeyToken | None:
        """Return what a token says that lets in; None for one that was made for something else, that is over, or whose key is revoked."""
        said = self.read(purpose, subject, token)
        return said if said is not None and await self._is_valid(said.key_id) else None

    def read(self, purpose: str, subject: str, token: str) -> KeyToken | None:
        """Return what a token says, whatever has become of its key; None for one that was made for something else, or that is over."""
        key_id, _, rest = token.partition(".")
        if not self._tokens.good(purpose, _signed(subject, key_id), rest):
            return None
        return KeyToken(key_id, self._tokens.expiry(rest))


def _signed(subject: str, key_id: str) -> str:
    return f"{subject} {key_id}"
