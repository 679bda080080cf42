# ruff: noqa: ASYNC109 - `timeout` is what clients of this kind call it, and the transport keeps it
"""`client.machines.files`: files and directories inside a machine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Mapping

from dormice.client import routes
from dormice.client._async.connection import AsyncConnection
from dormice.client._async.pagination import AsyncPaginator
from dormice.client.errors import APIResponseError, APIStatusError
from dormice.client.records import FileEntry, FilePart, decode
from dormice.client.transport import Timeout

_NO_SUCH_RANGE = 416


class AsyncFiles:
    """Files of a machine, which is woken for them.

    A relative path begins at `/root`. Bytes of a path that are no UTF-8 are surrogates, as in `os.fsdecode`. What is not
    there raises NotFoundError; what the state of the path does not allow, a full disk among it, ConflictError.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def stat(self, machine_id: str, path: str, *, timeout: float | Timeout | None = None) -> FileEntry:
        """What the path names; of a symbolic link, the link itself."""
        place = f"{routes.files(machine_id)}/stat"
        reply = await self._connection.call("GET", place, query={"path": path}, timeout=timeout)
        return decode(reply.content, FileEntry)

    def list(
        self, machine_id: str, path: str, *, limit: int | None = None, cursor: str | None = None
    ) -> AsyncPaginator[FileEntry]:
        """The entries of a directory in the order of the bytes of their names, `limit` to a page."""
        place = f"{routes.files(machine_id)}/list"
        return AsyncPaginator(self._connection, FileEntry, place, {"path": path, "limit": limit, "cursor": cursor})

    async def read(
        self,
        machine_id: str,
        path: str,
        *,
        start: int = 0,
        end: int | None = None,
        timeout: float | Timeout | None = None,
    ) -> bytes:
        """The bytes of a file from offset `start` up to `end`. Raises APIStatusError (416) if there is none, and ValueError unless 0 <= start < end."""
        headers = {} if end is None and not start else {"range": _range(start, end)}
        reply = await self._connection.call(
            "GET", routes.files(machine_id), query={"path": path}, headers=headers, timeout=timeout
        )
        return reply.content

    async def read_part(
        self,
        machine_id: str,
        path: str,
        *,
        start: int = 0,
        end: int | None = None,
        timeout: float | Timeout | None = None,
    ) -> FilePart:
        """The bytes of a file from offset `start` up to `end`, and how many the whole file has. Behind its end there are none.

        Raises ValueError unless 0 <= start < end.
        """
        headers = {"range": _range(start, end)}
        try:
            reply = await self._connection.call(
                "GET", routes.files(machine_id), query={"path": path}, headers=headers, timeout=timeout
            )
        except APIStatusError as error:
            if error.status_code != _NO_SUCH_RANGE:
                raise
            return FilePart(content=b"", size=_size(error.headers))
        return FilePart(content=reply.content, size=_size(reply.headers))

    async def stream(self, machine_id: str, path: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        """The bytes of a file from offset `start` on, piece by piece. Raises APIConnectionError if not all of them come."""
        headers = {"range": _range(start, None)} if start else {}
        response = await self._connection.open(routes.files(machine_id), query={"path": path}, headers=headers)
        try:
            async for piece in response.chunks():
                yield piece
        finally:
            await response.aclose()

    async def write(
        self,
        machine_id: str,
        path: str,
        content: bytes | str | AsyncIterable[bytes],
        *,
        mode: int | None = None,
        parents: bool = False,
        size: int | None = None,
        timeout: float | Timeout | None = None,
    ) -> FileEntry:
        """Write a file, which is there as a whole and on disk when this returns, and otherwise not at all.

        Args:
            machine_id: The machine.
            path: Where. What is there already is replaced at once, at the end.
            content: All of it, or its pieces, which are sent as they come, and only once.
            mode: Permissions; as they were by default, or else 0o644.
            parents: Make directories that are missing.
            size: How many bytes the pieces have in all, if that is known: what does not fit is then told at once.
            timeout: Seconds to wait for the server.

        """
        query = {"path": path, "mode": None if mode is None else f"{mode:03o}", "parents": parents or None}
        place = routes.files(machine_id)
        if isinstance(content, bytes | str):
            whole = content.encode() if isinstance(content, str) else content
            reply = await self._connection.call("PUT", place, query=query, content=whole, timeout=timeout)
        else:
            reply = await self._connection.upload(place, content, query=query, size=size, timeout=timeout)
        return decode(reply.content, FileEntry)

    async def delete(
        self, machine_id: str, path: str, *, recursive: bool = False, timeout: float | Timeout | None = None
    ) -> FileEntry:
        """Delete a path; a directory that is not empty with `recursive` only. Returns what it was."""
        query = {"path": path, "recursive": recursive or None}
        reply = await self._connection.call("DELETE", routes.files(machine_id), query=query, timeout=timeout)
        return decode(reply.content, FileEntry)

    async def mkdir(
        self,
        machine_id: str,
        path: str,
        *,
        mode: int | None = None,
        parents: bool = False,
        timeout: float | Timeout | None = None,
    ) -> FileEntry:
        """Make a directory; with `parents`, also those above, and it may be there already."""
        query = {"path": path, "mode": None if mode is None else f"{mode:03o}", "parents": parents or None}
        reply = await self._connection.call("POST", f"{routes.files(machine_id)}/mkdir", query=query, timeout=timeout)
        return decode(reply.content, FileEntry)

    async def rename(
        self, machine_id: str, path: str, to: str, *, replace: bool = False, timeout: float | Timeout | None = None
    ) -> FileEntry:
        """Give a path another name; with `replace`, what has that name already goes."""
        query = {"path": path, "to": to, "replace": replace or None}
        reply = await self._connection.call("POST", f"{routes.files(machine_id)}/rename", query=query, timeout=timeout)
        return decode(reply.content, FileEntry)

    async def read_archive(self, machine_id: str, path: str) -> AsyncGenerator[bytes, None]:
        """A directory as a tar archive, piece by piece. Raises APIConnectionError if not all of it comes."""
        response = await self._connection.open(
            f"{routes.files(machine_id)}/archive", query={"path": path}, headers={"accept": "application/x-tar"}
        )
        try:
            async for piece in response.chunks():
                yield piece
        finally:
            await response.aclose()

    async def write_archive(
        self,
        machine_id: str,
        path: str,
        content: bytes | AsyncIterable[bytes],
        *,
        timeout: float | Timeout | None = None,
    ) -> FileEntry:
        """Unpack an uncompressed tar archive into a directory, which is made if it is missing."""
        place = f"{routes.files(machine_id)}/archive"
        if isinstance(content, bytes):
            reply = await self._connection.call("PUT", place, query={"path": path}, content=content, timeout=timeout)
        else:
            reply = await self._connection.upload(place, content, query={"path": path}, timeout=timeout)
        return decode(reply.content, FileEntry)


def _range(start: int, end: int | None) -> str:
    if start < 0 or (end is not None and end <= start):
        raise ValueError("start and end must satisfy 0 <= start < end")
    return f"bytes={start}-{'' if end is None else end - 1}"


def _size(headers: Mapping[str, str]) -> int:
    """Of the whole that an answer has a part of."""
    size = headers.get("content-range", "").rpartition("/")[2]
    if not size.isdecimal():
        raise APIResponseError("the server's answer is not the range that was asked for")
    return int(size)
