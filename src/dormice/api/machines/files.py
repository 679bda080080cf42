"""Routes of files inside machines. Paths are query parameters, so that they may hold any byte (percent-encoded)."""

from __future__ import annotations

import re
from email.utils import formatdate
from urllib.parse import parse_qsl

from dormice.api.file_services import Reading
from dormice.api.http.asgi import ASGIApp
from dormice.api.http.bodies import BodyStream
from dormice.api.http.call import Call
from dormice.api.http.errors import Fault, InvalidRequest
from dormice.api.http.operation import Answer, Operation, Parameter
from dormice.api.http.pagination import page_limit
from dormice.api.http.ranges import ranged
from dormice.api.http.replies import Stream, json_reply
from dormice.api.machines import file_wire
from dormice.api.machines.parameters import paging
from dormice.api.services import Services
from dormice.domain.errors import DormiceError
from dormice.domain.files import FileEntry
from dormice.domain.limits import Limits

_PATH = "/v1/machines/{machine_id}/files"
_TAR = "application/x-tar"
_OCTETS = "application/octet-stream"
_MODE = re.compile(r"[0-7]{3,4}", re.ASCII)
_CURSOR = re.compile(r"(?:0[1-9a-f]|[1-9a-f][0-9a-f]){1,255}", re.ASCII)
"""A name in hexadecimal digits."""
_SIZE_DIGITS = 18
_ENTRY = {200: Answer("The entry.", file_wire.FileRecord)}


class FileRoutes:
    """Handlers over the files service."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._files = services.files

    async def read(self, call: Call) -> ASGIApp:
        """GET …/files."""
        reading = await self._files.open(call.caller, call.path["machine_id"], _path(call))
        try:
            entry = reading.entry
            tag = f'"{entry.modified_at:x}-{entry.size:x}"'
            part = ranged(call.header("Range"), call.header("If-Range"), entry.size, tag)
            await reading.want(part.start, part.end)
        except BaseException:
            await reading.aclose()
            raise
        headers = {
            **part.headers,
            "last-modified": formatdate(max(entry.modified_at, 0) / 1_000_000, usegmt=True),
            "x-dormice-mode": f"{entry.mode:04o}",
        }
        return _stream(reading, _OCTETS, headers, status=part.status)

    async def write(self, call: Call) -> ASGIApp:
        """PUT …/files."""
        path, mode, parents = _path(call), _mode(call), call.boolean("parents")
        length = call.header("Content-Length") or ""
        size = int(length) if length.isdigit() and len(length) <= _SIZE_DIGITS else None
        body = BodyStream(call.receive, call.while_valid)
        try:
            written = await self._files.write(
                call.caller, call.path["machine_id"], path, body, size=size, mode=mode, parents=parents
            )
        except DormiceError:
            await body.drain()
            raise
        return _entry(written)

    async def delete(self, call: Call) -> ASGIApp:
        """DELETE …/files."""
        path, recursive = _path(call), call.boolean("recursive")
        return _entry(await self._files.delete(call.caller, call.path["machine_id"], path, recursive=recursive))

    async def stat(self, call: Call) -> ASGIApp:
        """GET …/files/stat."""
        return _entry(await self._files.stat(call.caller, call.path["machine_id"], _path(call)))

    async def page(self, call: Call) -> ASGIApp:
        """GET …/files/list."""
        limit = page_limit(call, call.limits.page_max)
        path, after = _path(call), _after(call)
        found = await self._files.page(call.caller, call.path["machine_id"], path, after=after, limit=limit + 1)
        items = found[:limit]
        cursor = items[-1].name.hex() if len(found) > limit else None
        return json_reply(file_wire.FilePage(items=[file_wire.file(item) for item in items], next_cursor=cursor))

    async def mkdir(self, call: Call) -> ASGIApp:
        """POST …/files/mkdir."""
        mode = _mode(call)
        made = await self._files.mkdir(
            call.caller,
            call.path["machine_id"],
            _path(call),
            mode=0o755 if mode is None else mode,
            parents=call.boolean("parents"),
        )
        return _entry(made)

    async def rename(self, call: Call) -> ASGIApp:
        """POST …/files/rename."""
        path, to, replace = _path(call), _path(call, "to"), call.boolean("replace")
        return _entry(await self._files.rename(call.caller, call.path["machine_id"], path, to, replace=replace))

    async def pack(self, call: Call) -> ASGIApp:
        """GET …/files/archive."""
        reading = await self._files.pack(call.caller, call.path["machine_id"], _path(call))
        return _stream(reading, _TAR, {})

    async def unpack(self, call: Call) -> ASGIApp:
        """PUT …/files/archive."""
        path, body = _path(call), BodyStream(call.receive, call.while_valid)
        try:
            return _entry(await self._files.unpack(call.caller, call.path["machine_id"], path, body))
        except DormiceError:
            await body.drain()
            raise

    def operations(self) -> tuple[Operation, ...]:
        """Return every route."""
        limits = self._services.limits
        path, conflict = _path_parameter(limits), frozenset({409})
        return (
            Operation(
                id="readMachineFile",
                method="GET",
                path=_PATH,
                tag="files",
                summary="Read a file",
                description="A symbolic link is followed. `ETag` changes with the file; `If-Range` takes it.",
                handle=self.read,
                parameters=(
                    path,
                    Parameter("Range", "header", {"type": "string"}, "`bytes=a-b`: only these bytes (206, or 416)."),
                ),
                answers={
                    200: Answer("The file.", media_types=(_OCTETS,)),
                    206: Answer("The range.", media_types=(_OCTETS,)),
                },
                errors=conflict,
            ),
            Operation(
                id="writeMachineFile",
                method="PUT",
                path=_PATH,
                tag="files",
                summary="Write a file",
                description=(
                    "The body is the file, of any size. It is there as a whole and on disk once this is answered, and otherwise not "
                    "at all: who reads meanwhile sees the file before. A full disk is 409 `STORAGE_EXHAUSTED`."
                ),
                handle=self.write,
                parameters=(path, _MODE_PARAMETER, _PARENTS),
                streamed_body=True,
                answers=_ENTRY,
                errors=conflict,
            ),
            Operation(
                id="deleteMachineFile",
                method="DELETE",
                path=_PATH,
                tag="files",
                summary="Delete a file or a directory",
                description="The answer is what it was. A symbolic link is deleted itself.",
                handle=self.delete,
                parameters=(path, _flag("recursive", "Also a directory that is not empty, with all that is in it.")),
                answers=_ENTRY,
                errors=conflict,
            ),
            Operation(
                id="statMachineFile",
                method="GET",
                path=f"{_PATH}/stat",
                tag="files",
                summary="Look at a file",
                description="A symbolic link is told of itself.",
                handle=self.stat,
                parameters=(path,),
                answers=_ENTRY,
                errors=conflict,
            ),
            Operation(
                id="listMachineFiles",
                method="GET",
                path=f"{_PATH}/list",
                tag="files",
                summary="List a directory",
                description="In the order of the bytes of names.",
                handle=self.page,
                parameters=(path, paging(limits.page_max, limits)[0], _cursor_parameter()),
                answers={200: Answer("A page of entries.", file_wire.FilePage)},
                errors=conflict,
            ),
            Operation(
                id="makeMachineDirectory",
                method="POST",
                path=f"{_PATH}/mkdir",
                tag="files",
                summary="Make a directory",
                handle=self.mkdir,
                parameters=(path, _MODE_PARAMETER, _PARENTS),
                answers=_ENTRY,
                errors=conflict,
            ),
            Operation(
                id="renameMachineFile",
                method="POST",
                path=f"{_PATH}/rename",
                tag="files",
                summary="Give a file or a directory another name",
                handle=self.rename,
                parameters=(
                    path,
                    _path_parameter(limits, "to", "The new path."),
                    _flag("replace", "What has that name already goes."),
                ),
                answers=_ENTRY,
                errors=conflict,
            ),
            Operation(
                id="readMachineArchive",
                method="GET",
                path=f"{_PATH}/archive",
                tag="files",
                summary="Read a directory as a tar archive",
                description="Files, directories and symbolic links, named from the directory on; everything else is left out.",
                handle=self.pack,
                parameters=(path,),
                answers={200: Answer("The archive.", media_types=(_TAR,))},
                errors=conflict,
            ),
            Operation(
                id="writeMachineArchive",
                method="PUT",
                path=f"{_PATH}/archive",
                tag="files",
                summary="Unpack a tar archive into a directory",
                description=(
                    "The body is the archive, uncompressed, of any size. Names that are absolute, have `..` or lead out of the "
                    "directory through a link are refused (422), and so are devices and pipes. What came before the fault stays."
                ),
                handle=self.unpack,
                parameters=(path,),
                streamed_body=True,
                answers=_ENTRY,
                errors=conflict,
            ),
        )


def _entry(entry: FileEntry) -> ASGIApp:
    return json_reply(file_wire.file(entry))


def _stream(pieces: Reading, media_type: str, headers: dict[str, str], status: int = 200) -> ASGIApp:
    return Stream(pieces, status=status, media_type=media_type.encode(), headers=headers)


def _path(call: Call, name: str = "path") -> str:
    """Return a path of the query; bytes that are no UTF-8 become surrogates. Raises Invalid."""
    query: bytes = call.scope["query_string"]
    values = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape"))
    path = values.get(name, "")
    if not path:
        raise _bad(name, f"{name} is required: a path in the machine; a relative one begins at its home directory")
    if "\0" in path:
        raise _bad(name, f"{name} must have no NUL character: the kernel would cut it there")
    if len(path.encode("utf-8", "surrogateescape")) > call.limits.path_bytes:
        raise _bad(name, f"{name} must have at most {call.limits.path_bytes} bytes (path_bytes)")
    return path


def _mode(call: Call) -> int | None:
    text = call.query.get("mode")
    if not text:
        return None
    if not _MODE.fullmatch(text):
        raise _bad("mode", "mode must be three or four octal digits, such as 644")
    return int(text, 8)


def _after(call: Call) -> str | None:
    text = call.query.get("cursor")
    if not text:
        return None
    if _CURSOR.fullmatch(text):
        return bytes.fromhex(text).decode("utf-8", "surrogateescape")
    raise _bad("cursor", "the cursor is none of ours: send back the next_cursor as it was received")


def _bad(name: str, message: str) -> InvalidRequest:
    return InvalidRequest([Fault(message, f"query.{name}")])


def _path_parameter(
    limits: Limits,
    name: str = "path",
    means: str = "Where in the machine; a relative path begins at the home directory. Any byte but NUL, percent-encoded.",
) -> Parameter:
    schema = {"type": "string", "minLength": 1, "maxLength": limits.path_bytes, "pattern": "^[^\\u0000]+$"}
    return Parameter(name, "query", schema, means, required=True)


def _cursor_parameter() -> Parameter:
    schema = {"type": "string", "pattern": "^((0[1-9a-f]|[1-9a-f][0-9a-f]){1,255})?$"}
    return Parameter("cursor", "query", schema, "`next_cursor` of the page before.")


def _flag(name: str, means: str) -> Parameter:
    return Parameter(name, "query", {"type": "boolean", "default": False}, means)


_MODE_PARAMETER = Parameter(
    "mode",
    "query",
    {"type": "string", "pattern": "^[0-7]{3,4}$"},
    "Octal permissions. A file that is replaced keeps its own; otherwise 644, and 755 for a directory.",
)
_PARENTS = _flag("parents", "Make directories above that are missing.")
