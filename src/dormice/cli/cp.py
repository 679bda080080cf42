"""`dormice cp`: files and directories between this host and a machine."""

from __future__ import annotations

import argparse
import errno
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from dormice.cli.archives import BadArchive, pack, unpack
from dormice.cli.commands import Parser
from dormice.cli.connect import connect, server_options
from dormice.cli.files import remote
from dormice.cli.transfers import Progress, pieces_of, save, to_stdout
from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client._sync.files import Files
from dormice.client.errors import NotFoundError

_PIECE = 1 << 20


def declare(parser: Parser) -> None:
    parser.epilog = (
        "Examples: dormice cp report.pdf dm-…:/srv/ ; dormice cp dm-…:out results ; tar c . | dormice cp - dm-…:/tmp/a.tar ; "
        "dormice cp dm-…:log.txt - . A directory is copied with all that is in it: into the target if that is a directory "
        "already, else as the target; several sources always go into it. ~/ is /root. A file is replaced at once, at the end. A path of this host that has a colon is written with ./."
    )
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="PATH, MACHINE:PATH, or - for stdin")
    parser.add_argument("target", metavar="TARGET", help="PATH, MACHINE:PATH, or - for stdout")
    parser.add_argument("--quiet", "-q", action="store_true", help="show no progress")
    parser.add_argument("-r", "-R", "-a", action="store_true", help="changes nothing: directories are copied anyway")
    server_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Copy."""
    sources, target = arguments.sources, remote(arguments.target)
    several = len(sources) > 1
    if any((remote(source) is None) == (target is None) for source in sources):
        print("dormice cp: one of source and target must be MACHINE:PATH, and the other not", file=sys.stderr)
        return 2
    if several and "-" in (*sources, arguments.target):
        print(
            "dormice cp: several sources go into a directory, and - is one source or the target of one", file=sys.stderr
        )
        return 2
    connection = connect(arguments)
    progress = Progress(quiet=arguments.quiet)
    try:
        if several and target is None and not Path(arguments.target).is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), arguments.target)
        for source in sources:
            if target is not None:
                machine_id, path = target
                _upload(connection, source, machine_id, f"{path}/" if several else path, progress)
            elif (place := remote(source)) is not None:
                _download(connection, *place, arguments.target, progress)
    except OSError as error:
        print(f"dormice cp: {error.filename or arguments.target}: {error.strerror or error}", file=sys.stderr)
        return 1
    except BadArchive as error:
        print(f"dormice cp: {error}", file=sys.stderr)
        return 1
    finally:
        progress.end()
    return 0


def _upload(connection: Connection, source: str, machine_id: str, path: str, progress: Progress) -> None:
    files = Files(connection)
    if source == "-":
        progress.begin(path)
        files.write(machine_id, path, progress.over(pieces_of(sys.stdin.buffer)))
        return
    local = Path(source)
    inside = _is_directory(files, machine_id, path)
    target = f"{path.rstrip('/')}/{local.resolve().name}" if inside or path.endswith("/") else path
    progress.begin(target)
    if local.is_dir():
        files.write_archive(machine_id, target, progress.over(pack(local)))
        return
    with local.open("rb") as file:
        status = os.fstat(file.fileno())
        size = status.st_size if stat.S_ISREG(status.st_mode) and status.st_size else None  # of some in /proc it is 0
        pieces = progress.over(pieces_of(file, size))
        files.write(machine_id, target, pieces, mode=status.st_mode & 0o777, size=size)


def _download(connection: Connection, machine_id: str, path: str, target: str, progress: Progress) -> None:
    files = Files(connection)
    name = path.rstrip("/").rpartition("/")[2] or machine_id
    local = Path(target)
    if target != "-" and local.is_dir() and name not in {".", ".."}:
        local /= name
    progress.begin(name)
    if target != "-" and _is_directory(files, machine_id, path):
        with closing(files.read_archive(machine_id, path)) as archive:
            unpack(io.BufferedReader(_Readable(progress.over(archive)), _PIECE), local)
        return
    response = connection.open(routes.files(machine_id), query={"path": path}, headers={})
    with closing(response):
        pieces = progress.over(response.chunks())
        if target == "-":
            to_stdout(pieces)
        else:
            save(local, pieces, int(response.headers.get("x-dormice-mode", "644"), 8) & 0o777)


def _is_directory(files: Files, machine_id: str, path: str) -> bool:
    try:
        entry = files.stat(machine_id, path)
        if entry.type == "symlink":
            entry = files.stat(machine_id, f"{path}/.")
    except NotFoundError:
        return False
    return entry.type == "directory"


class _Readable(io.RawIOBase):
    """Pieces as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # its own type is any buffer
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._held = piece
        size = min(len(buffer), len(self._held))
        buffer[:size], self._held = self._held[:size], self._held[size:]
        return size
