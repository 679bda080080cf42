# Generated from _async/artifacts.py by scripts/generate_sync_client.py; change that and run it again.
"""`client.machines.artifacts`: files that executions have left behind."""

from __future__ import annotations

from collections.abc import Generator

from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client._sync.pagination import Page, paginate
from dormice.client.records import StoredArtifact, decode
from dormice.client.transport import Timeout


class Artifacts:
    """Artifacts of a machine: `executions.create(artifacts=…)` asks for them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self, machine_id: str, *, limit: int | None = None, cursor: str | None = None) -> Page[StoredArtifact]:
        """The machine's artifacts, newest first, `limit` to a page."""
        return paginate(self._connection, StoredArtifact, routes.artifacts(machine_id), limit=limit, cursor=cursor)

    def retrieve(self, artifact_id: str, *, machine_id: str, timeout: float | Timeout | None = None) -> StoredArtifact:
        """One artifact, with a new download URL."""
        reply = self._connection.call("GET", routes.artifact(machine_id, artifact_id), timeout=timeout)
        return decode(reply.content, StoredArtifact)

    def delete(self, artifact_id: str, *, machine_id: str, timeout: float | Timeout | None = None) -> StoredArtifact:
        """Delete an artifact. Returns what it was."""
        reply = self._connection.call("DELETE", routes.artifact(machine_id, artifact_id), timeout=timeout)
        return decode(reply.content, StoredArtifact)

    def read(self, artifact_id: str, *, machine_id: str, timeout: float | Timeout | None = None) -> bytes:
        """All its bytes."""
        path = f"{routes.artifact(machine_id, artifact_id)}/content"
        return (self._connection.call("GET", path, timeout=timeout)).content

    def stream(self, artifact_id: str, *, machine_id: str) -> Generator[bytes, None, None]:
        """Its bytes, piece by piece. Raises APIConnectionError if not all of them come."""
        path = f"{routes.artifact(machine_id, artifact_id)}/content"
        response = self._connection.open(path, query={}, headers={})
        try:
            yield from response.chunks()
        finally:
            response.close()
