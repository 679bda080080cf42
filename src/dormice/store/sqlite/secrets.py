"""Sealed environments and standard input: the only rows that hold secrets, each for as long as it is needed."""

from __future__ import annotations

from collections.abc import Mapping

import apsw
import msgspec

from dormice.domain.execution import Execution
from dormice.store.interface import StdinSegment
from dormice.store.sealing import Sealer, SecretKind
from dormice.store.sqlite import statements

_SQL = statements.load("secrets.sql")

SEGMENT_BYTES = 64 * 1024
"""Standard input is kept in pieces of at most this size, so that what was written can be deleted bit by bit."""


def keep_env(db: apsw.Connection, sealer: Sealer, number: int, execution_id: str, env: Mapping[str, str]) -> None:
    """Seal and keep an environment; an empty one needs no row."""
    if env:
        sealed = sealer.seal(execution_id, SecretKind.ENV, 0, msgspec.msgpack.encode(dict(env)))
        db.execute(_SQL["insert"], (number, SecretKind.ENV.value, 0, 0, sealed))


def keep_stdin(
    db: apsw.Connection, sealer: Sealer, number: int, execution_id: str, data: bytes, *, offset: int
) -> None:
    """Seal and keep standard input that begins at an offset."""
    for start in range(0, len(data), SEGMENT_BYTES):
        piece, at = data[start : start + SEGMENT_BYTES], offset + start
        sealed = sealer.seal(execution_id, SecretKind.STDIN, at, piece)
        db.execute(_SQL["insert"], (number, SecretKind.STDIN.value, at, at + len(piece), sealed))


def environment(db: apsw.Connection, sealer: Sealer, execution: Execution) -> dict[str, str]:
    """Return the environment, empty once deleted."""
    sealed = db.execute(_SQL["env"], (execution.number,)).get
    if sealed is None:
        return {}
    return msgspec.msgpack.decode(sealer.unseal(execution.id, SecretKind.ENV, 0, sealed), type=dict[str, str])


def stdin(db: apsw.Connection, sealer: Sealer, execution: Execution, offset: int, max_bytes: int) -> list[StdinSegment]:
    """Return segments that reach beyond an offset, up to `max_bytes`, at least one."""
    found: list[StdinSegment] = []
    size = 0
    for start, end, sealed in db.execute(_SQL["stdin"], (execution.number, offset)):
        size += end - start
        if found and size > max_bytes:
            break
        found.append(StdinSegment(start, sealer.unseal(execution.id, SecretKind.STDIN, start, sealed)))
    return found


def stdin_kept(db: apsw.Connection, execution: Execution) -> int:
    """Bytes of standard input that are kept: they follow one another up to the end of what is committed."""
    begin: int | None = db.execute(_SQL["stdin_begin"], (execution.number,)).get
    return 0 if begin is None else execution.stdin_offset - begin


def trim_stdin(db: apsw.Connection, execution_id: str, offset: int) -> None:
    """Delete segments wholly below an offset."""
    db.execute(_SQL["trim_stdin"], (execution_id, offset))


def delete_env(db: apsw.Connection, execution: Execution) -> None:
    """Delete the environment, if there was one."""
    if execution.env_keys:
        db.execute(_SQL["delete"], (execution.number, SecretKind.ENV.value))


def delete_stdin(db: apsw.Connection, execution: Execution) -> None:
    """Delete what is left of standard input, if there was any."""
    if execution.stdin_offset:
        db.execute(_SQL["delete"], (execution.number, SecretKind.STDIN.value))
