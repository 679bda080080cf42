"""What every request that needs a key goes through before its handler: whose it is, whether there are too many, whose turn it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dormice.api.http.auth import authenticate
from dormice.api.http.rates import Rates
from dormice.api.http.turnstile import Turnstile
from dormice.api.services import Services
from dormice.engine.orders import Caller

if TYPE_CHECKING:
    from litestar.types import Scope


class Admission:
    """One for all routes."""

    def __init__(self, services: Services) -> None:
        self._keys = services.keys
        self._key_max_chars = services.limits.key_max_chars
        self._rates = Rates(services.limits)
        self.turnstile = Turnstile()

    async def admit(self, scope: Scope, headers: dict[bytes, bytes]) -> Caller:
        """Return who calls, once it is his turn. Raises Unauthenticated, Forbidden, RateLimited."""
        caller = await authenticate(headers, self._keys, self._key_max_chars)
        scope["state"]["caller"] = caller
        self._rates.take(caller.key_id)
        await self.turnstile.enter(caller.organization_id)
        return caller
