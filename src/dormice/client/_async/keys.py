# ruff: noqa: ASYNC109 - `timeout` is what clients of this kind call it, and the transport keeps it
"""`client.keys`: API keys."""

from __future__ import annotations

from dormice.client import routes
from dormice.client._async.connection import AsyncConnection
from dormice.client._async.pagination import AsyncPaginator, paginate
from dormice.client.records import Key, NewKey, decode
from dormice.client.transport import Timeout


class AsyncKeys:
    """API keys of the caller's organization; an admin key sees and makes those of every organization."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    def list(self) -> AsyncPaginator[Key]:
        """The keys, oldest first, without their secrets."""
        return paginate(self._connection, Key, routes.KEYS)

    async def create(
        self,
        *,
        organization: str | None = None,
        name: str | None = None,
        admin: bool | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> NewKey:
        """Make a key; its secret is in `key` and is shown this once. The organization is made if it is new.

        Raises PermissionDeniedError unless the caller's key is an admin key.
        """
        body = {"organization": organization, "name": name, "admin": admin}
        reply = await self._connection.call(
            "POST", routes.KEYS, body=body, idempotency_key=idempotency_key, timeout=timeout
        )
        return decode(reply.content, NewKey)

    async def revoke(
        self, key_id: str, *, idempotency_key: str | None = None, timeout: float | Timeout | None = None
    ) -> Key:
        """Make a key invalid from now on. Raises PermissionDeniedError unless the caller's key is an admin key."""
        path = routes.key(key_id)
        reply = await self._connection.call("DELETE", path, idempotency_key=idempotency_key, timeout=timeout)
        return decode(reply.content, Key)
