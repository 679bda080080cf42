"""Files of machines, by commands that run there: the one place that knows how they are reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dormice.client import AsyncDormice, CompletedExecution

MOST_ENTRIES = 1_000
_READ = 'test ! -d "$1" || { echo "is a directory" >&2; exit 1; }; stat -Lc %s -- "$1" >&2 && tail -c "+$2" -- "$1" | head -c "$3"'
_WRITE = 'mkdir -p -- "$(dirname -- "$1")" && cat > "$1"'
_APPEND = 'mkdir -p -- "$(dirname -- "$1")" && cat >> "$1"'
_LIST = 'test -d "$1" || { echo "is not a directory" >&2; exit 1; }; cd -- "$1" && find . -mindepth 1 -maxdepth 1 -printf "%y %s %f\\0"'
_KINDS = {"f": "file", "d": "directory", "l": "symlink"}


class FileProblem(Exception):
    """It could not be done; the message says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file."""

    data: bytes
    size: int
    """Of the whole file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a directory holds."""

    name: str
    kind: str
    """file, directory, symlink or other."""
    size: int


class MachineFiles:
    """Reads, writes and lists. Paths are taken from /root on. Raises FileProblem and what the client raises."""

    def __init__(self, client: AsyncDormice) -> None:
        self._client = client

    async def read(self, machine_id: str, path: str, *, offset: int, length: int) -> Part:
        """Return the bytes from `offset` on, `length` at most."""
        done = await self._run(machine_id, _READ, path, str(offset + 1), str(length))
        return Part(done.stdout, int(done.stderr))

    async def write(self, machine_id: str, path: str, data: bytes, *, append: bool) -> None:
        """Make the file, or replace or extend what is in it; directories above it are made."""
        await self._run(machine_id, _APPEND if append else _WRITE, path, stdin=data)

    async def list(self, machine_id: str, path: str) -> Sequence[Entry]:
        """Return what is in a directory, by name."""
        done = await self._run(machine_id, _LIST, path)
        lines = done.stdout.decode(errors="replace").split("\0")[:-1]
        found = [line.split(" ", 2) for line in lines]
        return sorted(
            (Entry(name, _KINDS.get(kind, "other"), int(size)) for kind, size, name in found),
            key=lambda entry: entry.name,
        )

    async def _run(
        self, machine_id: str, script: str, path: str, *more: str, stdin: bytes | None = None
    ) -> CompletedExecution:
        argv = ["sh", "-c", f"set -e; {script}", "sh", _plain(path), *more]
        done = await self._client.machines.run(machine_id, argv, stdin=stdin)
        if done.exit_code != 0:
            reason = done.stderr.decode(errors="replace").strip() or done.error_message or done.status
            raise FileProblem(f"{path}: {reason}")
        if done.stdout_truncated:
            raise FileProblem(f"{path}: too much at once for this server; ask for less")
        return done


def _plain(path: str) -> str:
    """Return the path so that no tool takes it for an option. Raises FileProblem."""
    if not path or "\0" in path:
        raise FileProblem("a path must have at least one character, and no NUL")
    return path if path.startswith("/") else f"./{path}"
