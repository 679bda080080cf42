# ruff: noqa: ASYNC109 - `timeout` is what clients of this kind call it, and the transport keeps it
"""`client.machines.artifacts`: files that executions have left behind."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from dormice.client import routes
from dormice.client._async.connection import AsyncConnection
from dormice.client._async.pagination import AsyncPaginator, paginate
from dormice.client.records import StoredArtifact, decode
from dormice.client.transport import Timeout


class AsyncArtifacts:
    """Artifacts of a machine: `executions.create(artifacts=…)` asks for them."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    def list(
        self, machine_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> AsyncPaginator[StoredArtifact]:
        """The machine's artifacts, newest first, `limit` to a page."""
        return paginate(self._connection, StoredArtifact, routes.artifacts(machine_id), limit=limit, cursor=cursor)

    async def retrieve(
        self, artifact_id: str, *, machine_id: str, timeout: float | Timeout | None = None
    ) -> StoredArtifact:
        """One artifact, with a new download URL."""
        reply = await self._connection.call("GET", routes.artifact(machine_id, artifact_id), timeout=timeout)
        return decode(reply.content, StoredArtifact)

    async def delete(
        self, artifact_id: str, *, machine_id: str, timeout: float | Timeout | None = None
    ) -> StoredArtifact:
        """Delete an artifact. Returns what it was."""
        reply = await self._connection.call("DELETE", routes.artifact(machine_id, artifact_id), timeout=timeout)
        return decode(reply.content, StoredArtifact)

    async def read(self, artifact_id: str, *, machine_id: str, timeout: float | Timeout | None = None) -> bytes:
        """All its bytes."""
        path = f"{routes.artifact(machine_id, artifact_id)}/content"
        return (await self._connection.call("GET", path, timeout=timeout)).content

    async def stream(self, artifact_id: str, *, machine_id: str) -> AsyncGenerator[bytes, None]:
        """Its bytes, piece by piece. Raises APIConnectionError if not all of them come."""
        path = f"{routes.artifact(machine_id, artifact_id)}/content"
        response = await self._connection.open(path, query={}, headers={})
        try:
            async for piece in response.chunks():
                yield piece
        finally:
            await response.aclose()
