# Generated from _async/snapshots.py by scripts/generate_sync_client.py; change that and run it again.
"""`client.snapshots`: copies of machines' disks, which machines can be made from."""

from __future__ import annotations

from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client._sync.pagination import Page, paginate
from dormice.client.records import Snapshot, decode
from dormice.client.transport import Timeout


class Snapshots:
    """Snapshots. They outlive their machines. `machines.create(snapshot=…)` makes a machine from one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
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
        reply = self._connection.call(
            "POST",
            routes.snapshots_of(machine_id),
            query={"wait_ms": wait_ms},
            body={"name": name},
            idempotency_key=idempotency_key,
            timeout=timeout,
        )
        return decode(reply.content, Snapshot)

    def retrieve(
        self, snapshot_id: str, *, wait_ms: int | None = None, timeout: float | Timeout | None = None
    ) -> Snapshot:
        """The snapshot as it is now; with `wait_ms`, once it is ready or has failed."""
        path = routes.snapshot(snapshot_id)
        reply = self._connection.call("GET", path, query={"wait_ms": wait_ms}, timeout=timeout)
        return decode(reply.content, Snapshot)

    def list(
        self, *, machine_id: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> Page[Snapshot]:
        """The snapshots of one machine, or of all, `limit` to a page."""
        path = routes.SNAPSHOTS if machine_id is None else routes.snapshots_of(machine_id)
        return paginate(self._connection, Snapshot, path, limit=limit, cursor=cursor)

    def delete(
        self, snapshot_id: str, *, wait_ms: int | None = None, timeout: float | Timeout | None = None
    ) -> Snapshot:
        """Delete it. Machines that were made from it keep what they have."""
        path = routes.snapshot(snapshot_id)
        reply = self._connection.call("DELETE", path, query={"wait_ms": wait_ms}, timeout=timeout)
        return decode(reply.content, Snapshot)
