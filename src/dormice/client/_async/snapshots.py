# ruff: noqa: ASYNC109 - `timeout` is what clients of this kind call it, and the transport keeps it
"""`client.snapshots`: copies of machines' disks, which machines can be made from."""

from __future__ import annotations

from dormice.client import routes
from dormice.client._async.connection import AsyncConnection
from dormice.client._async.pagination import AsyncPaginator, paginate
from dormice.client.records import Snapshot, decode
from dormice.client.transport import Timeout


class AsyncSnapshots:
    """Snapshots. They outlive their machines. `machines.create(snapshot=…)` makes a machine from one."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def create(
        self,
        machine_id: str,
        *,
        name: str | None = None,
        wait_ms: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Snapshot:
        """Copy the disk of a machine, which may run, as it is now.

        Args:
            machine_id: The machine.
            name: What to call the snapshot; need not be unique.
            wait_ms: Milliseconds to wait for the copy, if more than ten seconds.
            idempotency_key: The same key with the same arguments gives the same snapshot. Made up if left out.
            timeout: Seconds to wait for the server.

        """
        reply = await self._connection.call(
            "POST",
            routes.snapshots_of(machine_id),
            query={"wait_ms": wait_ms},
            body={"name": name},
            idempotency_key=idempotency_key,
            timeout=timeout,
        )
        return decode(reply.content, Snapshot)

    async def retrieve(
        self, snapshot_id: str, *, wait_ms: int | None = None, timeout: float | Timeout | None = None
    ) -> Snapshot:
        """The snapshot as it is now; with `wait_ms`, once it is ready or has failed."""
        path = routes.snapshot(snapshot_id)
        reply = await self._connection.call("GET", path, query={"wait_ms": wait_ms}, timeout=timeout)
        return decode(reply.content, Snapshot)

    def list(
        self, *, machine_id: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> AsyncPaginator[Snapshot]:
        """The snapshots of one machine, or of all, `limit` to a page."""
        path = routes.SNAPSHOTS if machine_id is None else routes.snapshots_of(machine_id)
        return paginate(self._connection, Snapshot, path, limit=limit, cursor=cursor)

    async def delete(
        self, snapshot_id: str, *, wait_ms: int | None = None, timeout: float | Timeout | None = None
    ) -> Snapshot:
        """Delete it. Machines that were made from it keep what they have."""
        path = routes.snapshot(snapshot_id)
        reply = await self._connection.call("DELETE", path, query={"wait_ms": wait_ms}, timeout=timeout)
        return decode(reply.content, Snapshot)
