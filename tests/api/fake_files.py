"""Files of machines in memory, as far as the routes need them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator
from dataclasses import dataclass, field

from dormice.domain.errors import NotFound
from dormice.domain.files import FileEntry, FileType
from dormice.domain.ids import canonical_machine_id
from dormice.engine.orders import Caller


class FakeReading:
    """Bytes in one piece."""

    def __init__(self, entry: FileEntry, data: bytes) -> None:
        self.entry = entry
        self.closed = False
        self._pieces: Iterator[bytes] = iter([data])
        self._data = data

    async def want(self, start: int, end: int) -> None:
        self._pieces = iter([self._data[start:end]])

    def __aiter__(self) -> FakeReading:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class FakeFiles:
    """One machine's, by path."""

    machine_id: str
    now: int
    contents: dict[str, bytes] = field(default_factory=dict)
    readings: list[FakeReading] = field(default_factory=list)
    error: Exception | None = None

    def _entry(self, machine_id: str, path: str, kind: FileType = FileType.FILE, mode: int = 0o644) -> FileEntry:
        if self.error is not None:
            raise self.error
        if canonical_machine_id(machine_id) != self.machine_id:
            raise NotFound("no such machine")
        name = path.rpartition("/")[2].encode("utf-8", "surrogateescape")
        size = len(self.contents.get(path, b""))
        return FileEntry(name=name, type=kind, size=size, mode=mode, uid=0, gid=0, modified_at=self.now)

    def _known(self, machine_id: str, path: str) -> FileEntry:
        entry = self._entry(machine_id, path)
        if path not in self.contents:
            raise NotFound(f"{path}: no such file or directory")
        return entry

    async def stat(self, caller: Caller, machine_id: str, path: str) -> FileEntry:
        del caller
        return self._known(machine_id, path)

    async def page(
        self, caller: Caller, machine_id: str, path: str, *, after: str | None, limit: int
    ) -> list[FileEntry]:
        del caller, path
        found = [self._entry(machine_id, known) for known in sorted(self.contents)]
        return [entry for entry in found if after is None or entry.name > after.encode("utf-8", "surrogateescape")][
            :limit
        ]

    async def mkdir(self, caller: Caller, machine_id: str, path: str, *, mode: int, parents: bool) -> FileEntry:
        del caller, parents
        return self._entry(machine_id, path, FileType.DIRECTORY, mode)

    async def rename(self, caller: Caller, machine_id: str, path: str, to: str, *, replace: bool) -> FileEntry:
        del caller, replace
        self._known(machine_id, path)
        self.contents[to] = self.contents.pop(path)
        return self._entry(machine_id, to)

    async def delete(self, caller: Caller, machine_id: str, path: str, *, recursive: bool) -> FileEntry:
        del caller, recursive
        entry = self._known(machine_id, path)
        del self.contents[path]
        return entry

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
        del caller, size, parents
        self._entry(machine_id, path)
        self.contents[path] = b"".join([piece async for piece in pieces])
        return self._entry(machine_id, path, mode=mode or 0o644)

    async def unpack(self, caller: Caller, machine_id: str, path: str, pieces: AsyncIterable[bytes]) -> FileEntry:
        written = await self.write(caller, machine_id, path, pieces, size=None, mode=None, parents=True)
        return FileEntry(
            name=written.name, type=FileType.DIRECTORY, size=0, mode=0o755, uid=0, gid=0, modified_at=self.now
        )

    async def open(self, caller: Caller, machine_id: str, path: str) -> FakeReading:
        del caller
        self.readings.append(FakeReading(self._known(machine_id, path), self.contents[path]))
        return self.readings[-1]

    async def pack(self, caller: Caller, machine_id: str, path: str) -> FakeReading:
        return await self.open(caller, machine_id, path)
