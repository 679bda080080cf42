"""How many requests are served at once, and whose: an organization has no more of them than it leaves free for the others.

A request takes its place once it is known whose it is. Until then it waits for nobody outside: its key is looked up, or it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dormice.domain.errors import DormiceError, RateLimited, Unavailable
from dormice.domain.limits import Limits

if TYPE_CHECKING:
    from dormice.api.http.asgi import Scope

NOBODY = ""
"""Stands for the organization of those who need no key."""
_OWNER = "place_of"
"""Under this name the scope's state has the organization whose place the request has taken."""
_ALWAYS_SERVED = frozenset({"/metrics"})
"""What tells an operator of the crowd. Whether the server is well asks no key and takes no place."""
_RETRY_MS = 1_000


class Places:
    """Counts the requests of each organization, from their admission to their end."""

    def __init__(self, limits: Limits, most: int) -> None:
        """`most`: so many there may be, whatever the limits say."""
        self._most = self._free = min(limits.requests_at_once, most)
        self._most_without_key = limits.requests_at_once_without_key
        self._taken: dict[str, int] = {}

    def take(self, scope: Scope, organization_id: str) -> None:
        """Give a request its place, once, until it leaves. Raises RateLimited, Unavailable."""
        taken = self._taken.get(organization_id, 0)
        if taken >= self._free or (organization_id == NOBODY and taken >= self._most_without_key):
            if scope.get("path_template") in _ALWAYS_SERVED:
                return
            raise self._refusal(organization_id, taken)
        self._taken[organization_id] = taken + 1
        self._free -= 1
        scope["state"][_OWNER] = organization_id

    def leave(self, scope: Scope) -> None:
        """A request is over, whether it had a place or not."""
        organization_id = scope["state"].get(_OWNER)
        if organization_id is None:
            return
        self._free += 1
        if left := self._taken[organization_id] - 1:
            self._taken[organization_id] = left
        else:
            del self._taken[organization_id]

    def _refusal(self, organization_id: str, taken: int) -> DormiceError:
        if organization_id == NOBODY:
            words = f"{taken} requests without a key are being served (requests_at_once_without_key): come again"
            return Unavailable(words, retry_after_ms=_RETRY_MS)
        if not taken:
            words = f"{self._most} requests are being served (requests_at_once): come again"
            return Unavailable(words, retry_after_ms=_RETRY_MS)
        return RateLimited(
            f"{taken} requests of the organization are being served, and no more are left for the others (requests_at_once): come again",
            retry_after_ms=_RETRY_MS,
            details={"rate_limit_scope": "organization"},
        )
