"""Files inside machines: every path is walked by the guest's own tools, inside, and bytes go through channels."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncIterable, Sequence

from dormice.domain.errors import DormiceError
from dormice.domain.execution import Stream
from dormice.domain.files import FileEntry
from dormice.engine import file_tools
from dormice.engine.channel import Channel, ChannelOrder
from dormice.engine.channels import Channels
from dormice.engine.file_tools import entry, escaped
from dormice.engine.orders import Caller

SHORT_MS = 50_000
"""How long a tool that moves no bytes may take: below the read timeout of clients."""
_ENTRY_BYTES = 64 << 10
"""What a tool may say that is asked for one entry."""
_LINE_BYTES = 25_000
"""The longest path and the longest target of a link, every byte of them escaped, and the numbers of an entry."""
_AT_ONCE = 16
"""Lines that are parsed before others may go on."""
_COMPLAINT_BYTES = 4_096


class Files:
    """Files of the machines of every organization. Relative paths begin at `home`.

    All raise, besides what `Channels.open` raises, NotFound (also when the machine was deleted meanwhile), Conflict (the state of the
    path does not allow it; with code STORAGE_EXHAUSTED, the disk is full), Invalid (a path that cannot be one, an archive that is none),
    and Unavailable (the machine stopped meanwhile; Stalled: something in it holds the tool up).
    """

    def __init__(self, *, channels: Channels, home: str, stall_ms: int) -> None:
        """`stall_ms`: how long a tool that moves bytes may move none."""
        self._channels = channels
        self._home = home
        self._stall_ms = stall_ms

    async def stat(self, caller: Caller, machine_id: str, path: str) -> FileEntry:
        """Return what a path names; of a symbolic link, the link itself."""
        return await self._entry(caller, machine_id, path, "stat", self._at(path))

    async def page(
        self, caller: Caller, machine_id: str, path: str, *, after: str | None, limit: int
    ) -> list[FileEntry]:
        """Return at most `limit` entries of a directory, in the order of the bytes of their names, behind the name `after`."""
        begin = escaped(after) if after is not None else "/"
        return await self._entries(caller, machine_id, path, "list", self._at(path), begin, str(limit), limit=limit)

    async def glob(
        self, caller: Caller, machine_id: str, cwd: str, patterns: Sequence[str], *, limit: int
    ) -> list[FileEntry]:
        """Return at most `limit` regular files whose paths match, named by their paths: absolute, or from `cwd` on."""
        wanted = map(escaped, patterns)
        return await self._entries(caller, machine_id, cwd, "glob", self._at(cwd), str(limit), *wanted, limit=limit)

    async def mkdir(self, caller: Caller, machine_id: str, path: str, *, mode: int, parents: bool) -> FileEntry:
        """Make a directory; with `parents`, also those above it, and it may be there already."""
        return await self._entry(caller, machine_id, path, "mkdir", self._at(path), f"{mode:o}", _flag(parents))

    async def rename(self, caller: Caller, machine_id: str, path: str, to: str, *, replace: bool) -> FileEntry:
        """Give a path another name; with `replace`, what has that name already goes."""
        target = self._at(to)
        return await self._entry(caller, machine_id, path, "rename", self._at(path), target, _flag(replace))

    async def delete(self, caller: Caller, machine_id: str, path: str, *, recursive: bool) -> FileEntry:
        """Delete a path, a directory that is not empty with `recursive` only. Return what it was."""
        return await self._entry(caller, machine_id, path, "delete", self._at(path), _flag(recursive))

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
        """Write a file, which is there as a whole and on disk when this returns, and otherwise not at all.

        `size`: how many bytes come, if that is known. `mode` None: as it was, else 644. What `pieces` raises is raised.
        """
        octal, count = "-" if mode is None else f"{mode:o}", "-" if size is None else str(size)
        channel = await self._open(caller, machine_id, "write", self._at(path), octal, _flag(parents), count)
        return await _taken(channel, pieces, path)

    async def unpack(self, caller: Caller, machine_id: str, path: str, pieces: AsyncIterable[bytes]) -> FileEntry:
        """Unpack a tar archive into a directory, which is made if it is missing. Files written before a failure stay."""
        return await _taken(await self._open(caller, machine_id, "unpack", self._at(path)), pieces, path)

    async def open(self, caller: Caller, machine_id: str, path: str) -> FileReading:
        """Open a file; a symbolic link is followed. Whatever happens, the reading has to be closed."""
        reading = FileReading(await self._open(caller, machine_id, "read", self._at(path)), path)
        await reading.begin()
        return reading

    async def pack(self, caller: Caller, machine_id: str, path: str) -> ToolReading:
        """Return a directory as a tar archive. Whatever happens, the reading has to be closed."""
        reading = ToolReading(await self._open(caller, machine_id, "pack", self._at(path)), path)
        await reading.begin()
        return reading

    def _at(self, path: str) -> str:
        return escaped(posixpath.join(self._home, path))

    async def _open(self, caller: Caller, machine_id: str, *argv: str, timeout_ms: int = 0) -> Channel:
        stall_ms = 0 if timeout_ms else self._stall_ms
        order = ChannelOrder(argv=argv, tool=True, cwd="/", timeout_ms=timeout_ms, stall_ms=stall_ms)
        return await self._channels.open(caller, machine_id, order)

    async def _entry(self, caller: Caller, machine_id: str, path: str, *argv: str) -> FileEntry:
        channel = await self._open(caller, machine_id, *argv, timeout_ms=SHORT_MS)
        try:
            channel.write_eof()
            return await _one(channel, path)
        finally:
            channel.close()

    async def _entries(self, caller: Caller, machine_id: str, path: str, *argv: str, limit: int) -> list[FileEntry]:
        channel = await self._open(caller, machine_id, *argv, timeout_ms=SHORT_MS)
        try:
            channel.write_eof()
            return await _many(channel, path, limit)
        finally:
            channel.close()


class ToolReading:
    """What a tool puts out, piece by piece, no faster than it is read."""

    def __init__(self, channel: Channel, path: str) -> None:
        self._channel = channel
        self._path = path
        self._held = b""

    async def begin(self) -> None:
        """Wait for the first piece, so that what cannot even begin raises here."""
        try:
            self._held = await self._channel.read()
            if not self._held:
                raise await _complaint(self._channel, self._path)
        except BaseException:
            self._channel.close()
            raise

    def __aiter__(self) -> ToolReading:
        return self

    async def __anext__(self) -> bytes:
        piece, self._held = self._held or await self._channel.read(), b""
        if piece:
            return piece
        if (await self._channel.wait()).exit_code != 0:
            raise await _complaint(self._channel, self._path)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the tool, if it still runs."""
        self._channel.close()


class FileReading(ToolReading):
    """A file that is open: its entry, and then, once `want` has said which, its bytes."""

    entry: FileEntry
    """As it was when it was opened."""
    _left = 0

    async def begin(self) -> None:
        """Wait for the file's entry."""
        await super().begin()
        try:
            while b"\n" not in self._held and len(self._held) < _COMPLAINT_BYTES:
                piece = await self._channel.read()
                if not piece:
                    break
                self._held += piece
            line, _, self._held = self._held.partition(b"\n")
            self.entry = entry(line)
        except BaseException:
            self._channel.close()
            raise

    async def want(self, start: int, end: int) -> None:
        """Ask for the bytes start <= offset < end. Once."""
        self._left = end - start
        await self._channel.write(b"%d %d\n" % (start, self._left))
        self._channel.write_eof()

    async def __anext__(self) -> bytes:
        piece = (await super().__anext__())[: self._left]
        self._left -= len(piece)
        if not piece:
            raise StopAsyncIteration  # a machine that sends more than it was asked for is not listened to
        return piece


async def _taken(channel: Channel, pieces: AsyncIterable[bytes], path: str) -> FileEntry:
    try:
        async for piece in pieces:
            await channel.write(piece)
            if channel.ended:
                break  # it has failed; nobody would read the rest
        else:
            channel.write_eof()
        return await _one(channel, path)
    finally:
        channel.close()


async def _one(channel: Channel, path: str) -> FileEntry:
    """Return the entry that a tool puts out."""
    said = b""
    while piece := await channel.read():
        said += piece
        if len(said) > _ENTRY_BYTES:
            raise file_tools.nonsense()
    if (await channel.wait()).exit_code != 0:
        raise await _complaint(channel, path)
    return entry(said.removesuffix(b"\n"))


async def _many(channel: Channel, path: str, limit: int) -> list[FileEntry]:
    """Return the entries that a tool puts out. One that says more than it was asked for is not listened to."""
    entries: list[FileEntry] = []
    rest = b""
    while piece := await channel.read():
        if piece.count(b"\n") > limit - len(entries):
            raise file_tools.nonsense()
        *lines, rest = (rest + piece).split(b"\n")
        if max(map(len, [*lines, rest])) > _LINE_BYTES:
            raise file_tools.nonsense()
        for start in range(0, len(lines), _AT_ONCE):
            entries += map(entry, lines[start : start + _AT_ONCE])
            await asyncio.sleep(0)
    if (await channel.wait()).exit_code != 0:
        raise await _complaint(channel, path)
    if rest:
        raise file_tools.nonsense()
    return entries


async def _complaint(channel: Channel, path: str) -> DormiceError:
    """Return what a tool that ends without a result has to say."""
    said = b""
    while len(said) < _COMPLAINT_BYTES and (piece := await channel.read(Stream.STDERR)):
        said += piece
    return file_tools.failure(await channel.wait(), said, path, deleted=channel.deleted)


def _flag(value: bool) -> str:  # noqa: FBT001 - its only argument
    return "1" if value else "0"
