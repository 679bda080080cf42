# Generated from _async/keys.py by scripts/generate_sync_client.py; change that and run it again.
"""`client.keys`: API keys."""

from __future__ import annotations

from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client._sync.pagination import Page, paginate
from dormice.client.records import Key, NewKey, decode
from dormice.client.transport import Timeout


class Keys:
    """API keys of the caller's organization; an admin key sees and makes those of every organization."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> Page[Key]:
        """The keys, oldest first, without their secrets."""
        return paginate(self._connection, Key, routes.KEYS)

    def create(
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
        reply = self._connection.call("POST", routes.KEYS, body=body, idempotency_key=idempotency_key, timeout=timeout)
        return decode(reply.content, NewKey)

    def revoke(self, key_id: str, *, idempotency_key: str | None = None, timeout: float | Timeout | None = None) -> Key:
        """Make a key invalid from now on. Raises PermissionDeniedError unless the caller's key is an admin key."""
        path = routes.key(key_id)
        reply = self._connection.call("DELETE", path, idempotency_key=idempotency_key, timeout=timeout)
        return decode(reply.content, Key)
