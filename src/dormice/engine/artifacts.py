"""Artifacts: what executions leave behind, as callers see it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from dormice.domain.artifact import Artifact, Collection
from dormice.domain.errors import NotFound, Unavailable
from dormice.domain.execution import Execution
from dormice.domain.ids import canonical_machine_id
from dormice.engine.clock import Clock
from dormice.engine.collector import CollectionHints
from dormice.engine.orders import Caller
from dormice.store.artifacts import ArtifactStore, Contents

_NO_SUCH_ARTIFACT = "no such artifact on this machine"


class Artifacts:
    """Artifacts of every organization. Raises the errors of domain/errors.py and StoreUnavailable."""

    def __init__(
        self,
        *,
        store: ArtifactStore,
        contents: Contents | None,
        hints: CollectionHints,
        clock: Clock,
    ) -> None:
        self._store = store
        self._contents = contents
        self._hints = hints
        self._clock = clock

    async def of(self, execution: Execution) -> tuple[Collection, list[Artifact]] | None:
        """Return what is, or is to be, collected of an execution; None if nothing was asked for."""
        if execution.id not in self._hints.known:
            return None
        found = await self._store.collection(execution.id)
        if found is None:
            self._hints.known.discard(execution.id)
        return found

    async def get(self, caller: Caller, machine_id: str, artifact_id: str) -> Artifact:
        """Return an artifact. Raises NotFound."""
        canonical = canonical_machine_id(machine_id) or ""
        found = await self._store.get(caller.organization_id, canonical, artifact_id)
        if found is None or self._expired(found):
            raise NotFound(_NO_SUCH_ARTIFACT)
        return found

    async def page(self, caller: Caller, machine_id: str, *, before: int | None, limit: int) -> list[Artifact]:
        """Return artifacts of a machine newest first, below the number `before`."""
        canonical = canonical_machine_id(machine_id) or ""
        return await self._store.page(caller.organization_id, canonical, before=before, limit=limit)

    async def delete(self, caller: Caller, machine_id: str, artifact_id: str) -> Artifact:
        """Delete an artifact and its bytes; return what it was. Raises NotFound."""
        artifact = await self.get(caller, machine_id, artifact_id)
        await self._store.delete(artifact.id)
        if self._contents is not None:
            with suppress(OSError):  # what stays is deleted at the next start
                await self._contents.delete(artifact.id)
        return artifact

    def read(self, artifact: Artifact, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes start <= offset < end. Raises Unavailable if they cannot be read."""
        if self._contents is None:
            raise Unavailable("this server keeps no artifacts")
        return _readable(self._contents.read(artifact.id, start, end), end - start)

    async def find(self, artifact_id: str) -> Artifact:
        """Return an artifact for whoever has what its download URL holds. Raises NotFound."""
        found = await self._store.find(artifact_id)
        if found is None or self._expired(found):
            raise NotFound("no such artifact any more")
        return found

    def _expired(self, artifact: Artifact) -> bool:
        return artifact.expires_at is not None and artifact.expires_at < self._clock.now()


async def _readable(pieces: AsyncIterator[bytes], left: int) -> AsyncIterator[bytes]:
    try:
        async for piece in pieces:
            left -= len(piece)
            yield piece
    except OSError as error:
        raise Unavailable(f"the artifact cannot be read: {error.strerror}") from error
    if left:
        raise Unavailable("the artifact is shorter than it was")
