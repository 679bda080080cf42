"""The store on SQLite: one file, one writer, a few readers."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

import apsw

from dormice.domain.execution import Micros
from dormice.store.artifacts import ArtifactStore
from dormice.store.automation import ScheduleStore, TriggerStore
from dormice.store.interface import (
    ExecutionStore,
    IdempotencyClaim,
    KeyReused,
    KeyStore,
    MachineStore,
    Replayed,
    StoreUnavailable,
)
from dormice.store.lists import RunListStore
from dormice.store.previews import PreviewStore
from dormice.store.projects import ProjectStore
from dormice.store.sealing import Sealer
from dormice.store.sessions import SessionStore
from dormice.store.snapshots import SnapshotStore
from dormice.store.sqlite import idempotency, retention, run_retention, statements
from dormice.store.sqlite.artifacts import SqliteArtifacts
from dormice.store.sqlite.connection import exclusive, open_writer
from dormice.store.sqlite.driver import driver_errors
from dormice.store.sqlite.events import SqliteEvents
from dormice.store.sqlite.executions import SqliteExecutions
from dormice.store.sqlite.integrity import Watch
from dormice.store.sqlite.keys import SqliteKeys
from dormice.store.sqlite.machines import SqliteMachines
from dormice.store.sqlite.previews import SqlitePreviews
from dormice.store.sqlite.projects import SqliteProjects
from dormice.store.sqlite.reader import Reader
from dormice.store.sqlite.run_lists import SqliteRunLists
from dormice.store.sqlite.runs import SqliteRuns
from dormice.store.sqlite.schedules import SqliteSchedules
from dormice.store.sqlite.sessions import SqliteSessions
from dormice.store.sqlite.snapshots import SqliteSnapshots
from dormice.store.sqlite.ssh_sessions import SqliteSshSessions
from dormice.store.sqlite.terminals import SqliteTerminals
from dormice.store.sqlite.traces import SqliteTraces
from dormice.store.sqlite.triggers import SqliteTriggers
from dormice.store.sqlite.usage import SqliteUsage
from dormice.store.sqlite.webhooks import SqliteWebhooks, delete_old
from dormice.store.sqlite.writer import Writer
from dormice.store.ssh import SshSessionStore
from dormice.store.terminals import TerminalStore
from dormice.store.traces import TraceStore
from dormice.store.usage import AutoresizingStore, UsageStore
from dormice.store.webhooks import WebhookStore
from dormice.store.workflows import EventStore, RunStore

_SQL = statements.load("store.sql")


class SqliteStore:
    """Store on SQLite."""

    def __init__(self, writer: Writer, reader: Reader, sealer: Sealer, held: ExitStack) -> None:
        self._writer = writer
        self._reader = reader
        self._held = held
        self.commits = writer.commits
        self.machines: MachineStore = SqliteMachines(writer, reader)
        self.executions: ExecutionStore = SqliteExecutions(writer, reader, sealer)
        self.artifacts: ArtifactStore = SqliteArtifacts(writer, reader)
        self.keys: KeyStore = SqliteKeys(writer, reader)
        usage = SqliteUsage(writer, reader)
        self.usage: UsageStore = usage
        self.autoresizing: AutoresizingStore = usage
        self.previews: PreviewStore = SqlitePreviews(writer, reader)
        self.projects: ProjectStore = SqliteProjects(writer, reader)
        self.runs: RunStore = SqliteRuns(writer, reader, sealer)
        self.events: EventStore = SqliteEvents(writer, reader)
        self.schedules: ScheduleStore = SqliteSchedules(writer, reader)
        self.triggers: TriggerStore = SqliteTriggers(writer, reader)
        self.lists: RunListStore = SqliteRunLists(reader)
        self.traces: TraceStore = SqliteTraces(writer, reader)
        self.sessions: SessionStore = SqliteSessions(writer, reader)
        self.terminals: TerminalStore = SqliteTerminals(writer, reader, sealer)
        self.webhooks: WebhookStore = SqliteWebhooks(writer, reader, sealer)
        self.snapshots: SnapshotStore = SqliteSnapshots(writer, reader)
        self.ssh_sessions: SshSessionStore = SqliteSshSessions(writer, reader)

    @classmethod
    def open(cls, path: Path, sealer: Sealer) -> Self:
        """Open the file, made when missing. Call it on the thread of the running event loop.

        Raises StoreUnavailable when another server has it, it is corrupt, not ours or newer, or the key is another one.
        """
        with ExitStack() as opened:
            opened.enter_context(exclusive(path.with_name(f"{path.name}-lock")))
            db = open_writer(path)
            opened.callback(db.close)
            with driver_errors():
                _recognize_key(db, path, sealer)
            watch = Watch(path)
            reader = Reader(path, watch)
            held = opened.pop_all()
        return cls(Writer(db, watch), reader, sealer, held)

    async def recall(self, claim: IdempotencyClaim) -> Replayed | KeyReused | None:
        return self._reader.point(partial(idempotency.find, claim=claim))

    async def prune_idempotency(self, now: Micros) -> int:
        return await self._writer.run(partial(idempotency.prune, now=now))

    async def delete_finished(self, before: Micros) -> int:
        return await self._writer.run(partial(_delete_finished, before=before))

    async def check(self) -> None:
        await self._writer.run(_touch)

    async def close(self) -> None:
        # The writer goes last: the last connection to close folds the log into the file, and a reader could not.
        await self._reader.close()
        await self._writer.close()
        self._held.close()


def _recognize_key(db: apsw.Connection, path: Path, sealer: Sealer) -> None:
    """Refuse a key file that is not the one whose secrets are in the file."""
    known = db.execute(_SQL["value"], ("sealing_key",)).get
    if known is None:
        db.execute(_SQL["set_value"], ("sealing_key", sealer.fingerprint()))
    elif known != sealer.fingerprint():
        raise StoreUnavailable(f"the sealing key is not the one that {path.name} was written with")


def _delete_finished(db: apsw.Connection, before: Micros) -> int:
    return (
        retention.delete_finished(db, before)
        or run_retention.delete_finished_runs(db, before)
        or delete_old(db, before, retention.PIECE_ROWS)
    )


def _touch(db: apsw.Connection) -> None:
    """Change a page, so that the commit has to reach the disk."""
    count = int.from_bytes(db.execute(_SQL["value"], ("checks",)).get or b"", "big")
    db.execute(_SQL["set_value"], ("checks", (count + 1).to_bytes(8, "big")))
