"""What the routes of files and artifacts ask of the engine. As in services.py, its classes fit these protocols."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

from dormice.domain.artifact import Artifact, Collection
from dormice.domain.execution import Execution
from dormice.domain.files import FileEntry
from dormice.engine.orders import Caller


class Reading(Protocol):
    """Bytes out of a machine, piece by piece. It is closed whatever happens."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None:
        """Read no more."""
        ...


class FileReading(Reading, Protocol):
    """A file that is open."""

    @property
    def entry(self) -> FileEntry:
        """As it was when it was opened."""
        ...

    async def want(self, start: int, end: int) -> None:
        """Ask for the bytes start <= offset < end, before any is read."""
        ...


class Files(Protocol):
    """Files inside machines. Paths are text in which bytes that are no UTF-8 are surrogates."""

    async def stat(self, caller: Caller, machine_id: str, path: str) -> FileEntry:
        """Return what a path names, links not followed."""
        ...

    async def page(
        self, caller: Caller, machine_id: str, path: str, *, after: str | None, limit: int
    ) -> list[FileEntry]:
        """Return entries of a directory behind a name."""
        ...

    async def mkdir(self, caller: Caller, machine_id: str, path: str, *, mode: int, parents: bool) -> FileEntry:
        """Make a directory."""
        ...

    async def rename(self, caller: Caller, machine_id: str, path: str, to: str, *, replace: bool) -> FileEntry:
        """Give a path another name."""
        ...

    async def delete(self, caller: Caller, machine_id: str, path: str, *, recursive: bool) -> FileEntry:
        """Delete a path; return what it was."""
        ...

    async def write(
        self,
        caller: Caller,
        machine_id: str,
        path: str,
        pieces: AsyncIterable[bytes],
        *,
        size: int | None,
        mode: int | None,
        parents: bool,
    ) -> FileEntry:
        """Write a file as a whole, or not at all."""
        ...

    async def unpack(self, caller: Caller, machine_id: str, path: str, pieces: AsyncIterable[bytes]) -> FileEntry:
        """Unpack a tar archive into a directory."""
        ...

    async def open(self, caller: Caller, machine_id: str, path: str) -> FileReading:
        """Open a file."""
        ...

    async def pack(self, caller: Caller, machine_id: str, path: str) -> Reading:
        """Return a directory as a tar archive."""
        ...


class Artifacts(Protocol):
    """Files that executions leave behind."""

    async def of(self, execution: Execution) -> tuple[Collection, list[Artifact]] | None:
        """Return what is, or is to be, collected of an execution; None if nothing was asked for."""
        ...

    async def get(self, caller: Caller, machine_id: str, artifact_id: str) -> Artifact:
        """Return an artifact."""
        ...

    async def page(self, caller: Caller, machine_id: str, *, before: int | None, limit: int) -> list[Artifact]:
        """Return artifacts of a machine, newest first, numbers below `before`."""
        ...

    async def delete(self, caller: Caller, machine_id: str, artifact_id: str) -> Artifact:
        """Delete an artifact; return what it was."""
        ...

    def read(self, artifact: Artifact, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes start <= offset < end."""
        ...

    async def find(self, artifact_id: str) -> Artifact:
        """Return an artifact for whoever has what its download URL holds."""
        ...
