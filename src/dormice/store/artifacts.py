"""Where artifacts are kept: their records in the store, their bytes in files beside it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from dormice.domain.artifact import Artifact, Collection, CollectionEvent
from dormice.domain.execution import Micros


class ArtifactStore(Protocol):
    """Collections and artifacts. A collection is made together with its execution (`NewExecution.artifacts`)."""

    async def known(self) -> set[str]:
        """Return the ids of all executions that have a collection."""
        ...

    async def due(
        self,
        *,
        limit: int,
        executions: Sequence[str] = (),
        machines: Sequence[str] = (),
        organizations: Sequence[str] = (),
    ) -> list[Collection]:
        """Return pending collections whose execution has ended, oldest first; none of those that are named."""
        ...

    async def end(self, execution_id: str, event: CollectionEvent, artifacts: Sequence[Artifact], message: str) -> bool:
        """End a pending collection together with what was copied; False, and nothing changes, if it is not pending."""
        ...

    async def collection(self, execution_id: str) -> tuple[Collection, list[Artifact]] | None:
        """Return the collection of an execution and its artifacts, in the order in which they were found."""
        ...

    async def get(self, organization_id: str, machine_id: str, artifact_id: str) -> Artifact | None:
        """Return one artifact of a machine."""
        ...

    async def find(self, artifact_id: str) -> Artifact | None:
        """Return one artifact, whosever it is: for who has shown that he may have it."""
        ...

    async def page(self, organization_id: str, machine_id: str, *, before: int | None, limit: int) -> list[Artifact]:
        """Return artifacts of a machine newest first, below a number."""
        ...

    async def delete(self, artifact_id: str) -> None:
        """Delete the record of an artifact; nothing happens if there is none."""
        ...

    async def expired(self, now: Micros, *, limit: int) -> list[str]:
        """Return ids of artifacts whose time is over, those of longest ago first."""
        ...

    async def kept_bytes(self, organization_id: str) -> int:
        """Return how large all artifacts of an organization are."""
        ...

    async def ids(self) -> set[str]:
        """Return the ids of all artifacts."""
        ...


class Contents(Protocol):
    """The bytes of artifacts, by artifact id. Methods raise OSError."""

    async def save(self, artifact_id: str, pieces: AsyncIterable[bytes], *, most: int) -> tuple[int, str]:
        """Keep bytes, durably; return how many and their SHA-256 in hexadecimal. Raises TooMuch beyond `most`, and what `pieces` raises."""
        ...

    async def room(self) -> int:
        """Return how many bytes more may be kept at present; less than 0 if there are too many already."""
        ...

    def read(self, artifact_id: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes start <= offset < end."""
        ...

    async def delete(self, artifact_id: str) -> None:
        """Delete them; nothing happens if there are none."""
        ...

    async def keep_only(self, artifact_ids: AbstractSet[str]) -> None:
        """Delete all others: what a crash has left."""
        ...


class TooMuch(Exception):
    """There are more bytes than may be kept."""
