"""The bytes of artifacts as files in one directory, mode 0600. A file has its name once it is whole and on disk."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from dormice.store.artifacts import TooMuch

_PIECE = 256 << 10
_DRAFT = ".draft"


class ArtifactFiles:
    """Contents of artifacts in a directory, which is made when it is missing."""

    def __init__(self, directory: Path, *, reserve_bytes: int = 0) -> None:
        """`reserve_bytes` of the file system are left to others: the store is on it, too."""
        self._directory = directory
        self._reserve = reserve_bytes
        directory.mkdir(mode=0o700, exist_ok=True)

    async def save(self, artifact_id: str, pieces: AsyncIterable[bytes], *, most: int) -> tuple[int, str]:
        draft = self._directory / f"{artifact_id}{_DRAFT}"
        digest, size = hashlib.sha256(), 0
        file = await asyncio.to_thread(_create, draft)
        try:
            async for piece in pieces:
                size += len(piece)
                if size > most:
                    raise TooMuch
                await asyncio.to_thread(_append, file, digest, piece)
            await asyncio.to_thread(_place, file, draft, self._directory / artifact_id)
        except BaseException:
            file.close()
            draft.unlink(missing_ok=True)
            raise
        return size, digest.hexdigest()

    async def room(self) -> int:
        found = await asyncio.to_thread(os.statvfs, self._directory)
        return found.f_bavail * found.f_frsize - self._reserve

    async def read(self, artifact_id: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        file = await asyncio.to_thread((self._directory / artifact_id).open, "rb")
        try:
            await asyncio.to_thread(file.seek, start)
            while start < end and (piece := await asyncio.to_thread(file.read, min(_PIECE, end - start))):
                start += len(piece)
                yield piece
        finally:
            file.close()

    async def delete(self, artifact_id: str) -> None:
        await asyncio.to_thread((self._directory / artifact_id).unlink, missing_ok=True)

    async def keep_only(self, artifact_ids: AbstractSet[str]) -> None:
        await asyncio.to_thread(self._keep_only, artifact_ids)

    def _keep_only(self, artifact_ids: AbstractSet[str]) -> None:
        for path in self._directory.iterdir():
            if path.name not in artifact_ids:
                with suppress(FileNotFoundError):
                    path.unlink()


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _append(file: BinaryIO, digest: hashlib._Hash, piece: bytes) -> None:
    digest.update(piece)
    file.write(piece)


def _place(file: BinaryIO, draft: Path, path: Path) -> None:
    with file:
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
