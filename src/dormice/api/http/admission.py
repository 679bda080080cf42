"""What every request that needs a key goes through before its handler: whose it is, whether there are too many, whose turn it is.

What needs none goes through a part of it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dormice.api.http.auth import authenticate
from dormice.api.http.connection import most_connections
from dormice.api.http.places import Places
from dormice.api.http.rates import Rates
from dormice.api.http.replies import WHILE_VALID
from dormice.api.http.turnstile import Turnstile
from dormice.api.services import Services
from dormice.domain.errors import Forbidden
from dormice.engine.orders import Caller

if TYPE_CHECKING:
    from dormice.api.http.asgi import Scope


class Admission:
    """One for all routes."""

    def __init__(self, services: Services) -> None:
        self._keys = services.keys
        self._key_max_chars = services.limits.key_max_chars
        self._rates = Rates(services.limits)
        # Half the connections are for requests, so that there is always one for those that come.
        self.places = Places(services.limits, most_connections() // 2)
        self.turnstile = Turnstile()

    async def admit(self, scope: Scope, headers: dict[bytes, bytes], *, project_keys: bool = False) -> Caller:
        """Return who calls, once it is his turn. Raises Unauthenticated, Forbidden, RateLimited, Unavailable.

        `project_keys`: a key that may use one project only is good here.
        """
        caller = await authenticate(headers, self._keys, self._key_max_chars)
        if caller.project_id is not None and not project_keys:
            raise Forbidden("the key is for one project, and machines belong to no project: use another key")
        await self.let_in(scope, caller)
        return caller

    async def let_in(self, scope: Scope, caller: Caller) -> None:
        """Return once it is the caller's turn, however it is known who calls. Raises RateLimited, Unavailable."""
        scope["state"]["caller"] = caller
        scope["state"][WHILE_VALID] = partial(self._keys.while_valid, caller.key_id)
        self._rates.take(caller.key_id)
        await self.enter(scope, caller.organization_id)

    async def enter(self, scope: Scope, organization_id: str) -> None:
        """Return once it is an organization's turn, whoever comes on its behalf. Raises RateLimited, Unavailable."""
        self.places.take(scope, organization_id)
        await self.turnstile.enter(organization_id)
