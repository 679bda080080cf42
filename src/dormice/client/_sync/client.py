# Generated from _async/client.py by scripts/generate_sync_client.py; change that and run it again.
"""The client itself: `Dormice`."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from dormice.client import routes, settings
from dormice.client._sync.autoresizing import Organization
from dormice.client._sync.connection import Connection
from dormice.client._sync.keys import Keys
from dormice.client._sync.machines import Machines
from dormice.client._sync.snapshots import Snapshots
from dormice.client._sync.usage import Usage
from dormice.client._sync.webhooks import Webhooks
from dormice.client.records import Limits, decode
from dormice.client.transport import Timeout, Transport


class Dormice:
    """A client of one Dormice server. Use it in a `with` block, or close it at the end.

    Args:
        base_url: Where the server is; default `DORMICE_BASE_URL`, else `http://127.0.0.1:7433`.
        api_key: Default `DORMICE_API_KEY`, else, for a server on this host, the file `api-key` in
            `DORMICE_DATA_DIR` (`/var/lib/dormice`).
        org_id: Id of the organization that the key must belong to; default `DORMICE_ORG_ID`. Not needed.
        timeout: Seconds to wait for each piece of an answer (60), or a `Timeout`.
        max_retries: Further tries after a failure that may pass.
        transport: What carries requests, instead of a connection pool of the client's own.

    Raises:
        ConfigurationError: There is no key, or the base URL is none.

    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        org_id: str | None = None,
        timeout: float | Timeout | None = None,
        max_retries: int = 2,
        transport: Transport | None = None,
    ) -> None:
        found = settings.resolve(base_url=base_url, api_key=api_key, org_id=org_id)
        if transport is None:
            # Here, because it takes longer to load than all of the rest.
            from dormice.client.httpx_transport import HttpxTransport  # noqa: PLC0415

            transport = HttpxTransport(found.base_url)
        patience = timeout if isinstance(timeout, Timeout) else Timeout() if timeout is None else Timeout(read=timeout)
        self._connection = Connection(found, transport, timeout=patience, max_retries=max_retries)
        self.machines = Machines(self._connection)
        self.snapshots = Snapshots(self._connection)
        self.keys = Keys(self._connection)
        self.usage = Usage(self._connection)
        self.organization = Organization(self._connection)
        self.webhooks = Webhooks(self._connection)

    def __repr__(self) -> str:
        return f"<Dormice {self.base_url}>"

    @property
    def base_url(self) -> str:
        return self._connection.settings.base_url

    def limits(self, *, timeout: float | Timeout | None = None) -> Limits:
        """Every limit and default of the server."""
        return decode((self._connection.call("GET", routes.LIMITS, timeout=timeout)).content, Limits)

    def close(self) -> None:
        """End all connections. Executions run on."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
