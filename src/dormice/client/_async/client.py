# ruff: noqa: ASYNC109 - `timeout` is what clients of this kind call it, and the transport keeps it
"""The client itself: `AsyncDormice`."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from dormice.client import routes, settings
from dormice.client._async.autoresizing import AsyncOrganization
from dormice.client._async.connection import AsyncConnection
from dormice.client._async.keys import AsyncKeys
from dormice.client._async.machines import AsyncMachines
from dormice.client._async.snapshots import AsyncSnapshots
from dormice.client._async.usage import AsyncUsage
from dormice.client._async.webhooks import AsyncWebhooks
from dormice.client.records import Limits, decode
from dormice.client.transport import AsyncTransport, Timeout


class AsyncDormice:
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
        transport: AsyncTransport | None = None,
    ) -> None:
        found = settings.resolve(base_url=base_url, api_key=api_key, org_id=org_id)
        if transport is None:
            # Here, because it takes longer to load than all of the rest.
            from dormice.client.aiohttp_transport import AiohttpTransport  # noqa: PLC0415

            transport = AiohttpTransport(found.base_url)
        patience = timeout if isinstance(timeout, Timeout) else Timeout() if timeout is None else Timeout(read=timeout)
        self._connection = AsyncConnection(found, transport, timeout=patience, max_retries=max_retries)
        self.machines = AsyncMachines(self._connection)
        self.snapshots = AsyncSnapshots(self._connection)
        self.keys = AsyncKeys(self._connection)
        self.usage = AsyncUsage(self._connection)
        self.organization = AsyncOrganization(self._connection)
        self.webhooks = AsyncWebhooks(self._connection)

    def __repr__(self) -> str:
        return f"<AsyncDormice {self.base_url}>"

    @property
    def base_url(self) -> str:
        return self._connection.settings.base_url

    async def limits(self, *, timeout: float | Timeout | None = None) -> Limits:
        """Every limit and default of the server."""
        return decode((await self._connection.call("GET", routes.LIMITS, timeout=timeout)).content, Limits)

    async def aclose(self) -> None:
        """End all connections. Executions run on."""
        await self._connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
