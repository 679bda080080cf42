"""Bytes on their way to or from a file of this host: shown to people, and there as a whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from dormice.cli.printing import printable

_EVERY_SECONDS = 0.2
_PIECE = 1 << 20


def to_stdout(pieces: Iterable[bytes]) -> None:
    """Write all of them."""
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def pieces_of(file: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """Yield what a file holds: its first `size` bytes, which were announced, also if it has grown since. Raises OSError if it has shrunk."""
    left = sys.maxsize if size is None else size
    while left and (piece := file.read(min(left, _PIECE))):
        left -= len(piece)
        yield piece
    if size is not None and left:
        raise OSError(errno.EIO, "it became shorter while it was copied", file.name)


def save(local: Path, pieces: Iterable[bytes], mode: int = 0o666) -> None:
    """Write a file, which is there as a whole or not at all; through a link. `mode`: its permissions, less those that the umask takes."""
    if local.exists() and not local.is_file():  # a device, a pipe: there is nothing to replace
        with local.open("wb") as file:
            file.writelines(pieces)
        return
    named, local = local, Path(os.path.realpath(local))
    fresh = local.with_name(f".dormice-{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.writelines(pieces)
        fresh.replace(local)
    except BaseException as error:
        with suppress(OSError):
            fresh.unlink()
        if isinstance(error, OSError) and error.filename == str(fresh):
            raise OSError(error.errno, error.strerror, str(named)) from error  # nobody knows it by the other name
        raise


class Progress:
    """One line on stderr: what, how much, how fast."""

    def __init__(self, *, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._name = ""
        self._began = self._told = 0.0

    def begin(self, name: str) -> None:
        self._name = printable(name)
        self._began = time.monotonic()

    def over(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass the pieces on and count them."""
        size = 0
        for piece in pieces:
            yield piece
            size += len(piece)
            now = time.monotonic()
            if self._shown and now - self._told >= _EVERY_SECONDS:
                self._told = now
                rate = size / max(now - self._began, 0.001)
                print(f"\r\x1b[K{self._name}  {size / 1e6:.1f} MB  {rate / 1e6:.1f} MB/s", end="", file=sys.stderr)

    def end(self) -> None:
        if self._told:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
