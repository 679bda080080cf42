"""How much room there is for artifacts: what an organization may keep, and what the server's disk has left."""

from __future__ import annotations

from collections import Counter

from dormice.domain.artifact import Collection
from dormice.domain.limits import Limits
from dormice.store.artifacts import ArtifactStore, Contents


class ArtifactRoom:
    """Gives room to files that are about to be copied."""

    def __init__(self, *, store: ArtifactStore, contents: Contents, limits: Limits) -> None:
        self._store = store
        self._contents = contents
        self._most = limits.artifacts_bytes_per_organization
        self._claimed: dict[str, Counter[str]] = {}
        """By organization and execution: bytes that the store does not know of yet."""
        self._unwritten = 0
        """Bytes that the disk will be given by those that are being copied."""

    async def claim(self, collection: Collection, size: int) -> str:
        """Take room for one file of `size` bytes; return why there is none, or nothing. Raises StoreUnavailable, OSError.

        Once the file is written, or will not be, call `written`; once its collection has ended, `release`.
        """
        kept = await self._store.kept_bytes(collection.organization_id)
        free = await self._contents.room()
        claimed = self._claimed.setdefault(collection.organization_id, Counter())
        if kept + claimed.total() + size > self._most:
            return f"artifacts_bytes_per_organization ({self._most}) leaves no room for it: delete older artifacts"
        if self._unwritten + size > free:
            return "the server's disk has no room for it (storage_reserve_gib)"
        claimed[collection.execution_id] += size
        self._unwritten += size
        return ""

    def written(self, size: int) -> None:
        """Hear that a file that was given room is on disk, or will never be."""
        self._unwritten -= size

    def release(self, collection: Collection) -> None:
        """Hear that what a collection has copied is known to the store, or gone."""
        claimed = self._claimed.get(collection.organization_id, Counter())
        claimed.pop(collection.execution_id, None)
        if not claimed:
            self._claimed.pop(collection.organization_id, None)
