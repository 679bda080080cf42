"""Artifacts in memory, as far as the routes need them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dormice.domain.artifact import Artifact, Collection
from dormice.domain.errors import NotFound
from dormice.domain.execution import Execution
from dormice.engine.orders import Caller


class FakeArtifacts:
    """One artifact of one machine, whose bytes are its size in zeros."""

    def __init__(self, machine_id: str, now: int) -> None:
        self.one = Artifact(
            number=1,
            id="art-1",
            execution_id="exec-1",
            organization_id="o",
            machine_id=machine_id,
            name=b"out/\xff.json",
            size=100,
            sha256="0" * 64,
            mime_type="application/json",
            created_at=now,
            expires_at=now,
        )
        self.collections: dict[str, Collection] = {}

    async def of(self, execution: Execution) -> tuple[Collection, list[Artifact]] | None:
        found = self.collections.get(execution.id)
        return None if found is None else (found, [self.one])

    async def get(self, caller: Caller, machine_id: str, artifact_id: str) -> Artifact:
        del caller
        if (machine_id, artifact_id) != (self.one.machine_id, self.one.id):
            raise NotFound("no such artifact on this machine")
        return self.one

    async def page(self, caller: Caller, machine_id: str, *, before: int | None, limit: int) -> list[Artifact]:
        del caller
        shown = machine_id == self.one.machine_id and (before is None or before > 1)
        return [self.one][:limit] if shown else []

    async def delete(self, caller: Caller, machine_id: str, artifact_id: str) -> Artifact:
        return await self.get(caller, machine_id, artifact_id)

    async def read(self, artifact: Artifact, start: int, end: int) -> AsyncIterator[bytes]:
        del artifact
        yield bytes(end - start)

    async def find(self, artifact_id: str) -> Artifact:
        if artifact_id != self.one.id:
            raise NotFound("no such artifact any more")
        return self.one
