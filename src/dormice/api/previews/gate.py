"""Who is let in to a preview, and which headers of his held a key of ours, so that the program behind it must not see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dormice.api.http.auth import SCHEME
from dormice.api.previews.addresses import Target
from dormice.api.previews.headers import Headers, own_cookies
from dormice.api.services import Keys
from dormice.domain.errors import Unauthenticated
from dormice.domain.execution import Micros
from dormice.domain.preview import Preview, Visibility
from dormice.engine.orders import Caller
from dormice.engine.previews import Previews

_SAFE = frozenset({"GET", "HEAD"})


@dataclass(slots=True)
class Admitted:
    """Somebody who is let in."""

    key_id: str = ""
    """The key that has let him in, or that his link was made with; empty where everybody is let in."""
    withheld: set[bytes] = field(default_factory=set)
    """Headers that held a valid key."""
    token: str = ""
    """A token in the query that let him in, and is to become a cookie until `token_expires_at`."""
    token_expires_at: Micros = 0


class Gate:
    """Asks for a token, a cookie or a key, in this order."""

    def __init__(self, previews: Previews, keys: Keys, key_max_chars: int) -> None:
        self._previews = previews
        self._keys = keys
        self._key_max_chars = key_max_chars

    async def admit(
        self, preview: Preview, target: Target, method: str, headers: Headers, tokens: Sequence[str]
    ) -> Admitted:
        """Let in. Raises Unauthenticated, Forbidden, NotFound. `method`: empty for a WebSocket."""
        admitted, callers = Admitted(), []
        for name, value in headers:
            if name in (b"authorization", b"x-api-key") and (caller := await self._caller(name, value)) is not None:
                admitted.withheld.add(name)
                callers.append(caller)
        if preview.visibility is Visibility.PUBLIC:
            return admitted
        for token in tokens:
            if (link := await self._previews.letting_in(preview, [token])) is not None:
                admitted.key_id, admitted.token, admitted.token_expires_at = link.key_id, token, link.expires_at
                return admitted
        if (method in _SAFE or not _comes_from_elsewhere(headers, target)) and (
            link := await self._previews.letting_in(preview, own_cookies(headers))
        ) is not None:
            admitted.key_id = link.key_id
            return admitted
        if callers:
            admitted.key_id = self._previews.opening(preview, callers).key_id
            return admitted
        raise Unauthenticated(
            f"this preview is {preview.visibility.value}: open it by a link that `dormice preview` has made, or send a key",
            code="AUTH_REQUIRED",
        )

    async def _caller(self, name: bytes, value: bytes) -> Caller | None:
        """Whose key a header holds; None where it holds none of ours, and is the program's."""
        secret = value.strip()
        if name == b"authorization":
            scheme, _, secret = secret.partition(b" ")
            if scheme.lower() != SCHEME:
                return None
        text = secret.strip().decode("latin-1")
        if not text or len(text) > self._key_max_chars:
            return None
        try:
            return await self._keys.authenticate(text)
        except Unauthenticated:
            return None


def _comes_from_elsewhere(headers: Headers, target: Target) -> bool:
    """Whether a page of another host had the browser send this: the cookie came along without anybody wanting it."""
    host = target.origin.partition("://")[2].lower()
    origins = [value.decode("latin-1").lower() for name, value in headers if name == b"origin"]
    return any(origin.partition("://")[2] != host for origin in origins)
