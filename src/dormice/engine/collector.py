"""Collects artifacts: copies what ended executions have left behind out of their machines, and deletes what has expired.

A collection is recorded in the transaction that records its execution, so no crash loses one. Once the execution has ended it is
due, and stays so over restarts until its files are copied, or cannot be had any more. The end of the execution does not wait for it;
the machine is held awake meanwhile, and woken if it sleeps. One collection of a machine is under way at a time, and few of an
organization: nobody's machines keep those of others waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from mimetypes import MimeTypes

from dormice.domain import ids
from dormice.domain.artifact import Artifact, Collection, CollectionEvent
from dormice.domain.errors import Conflict, DormiceError, Invalid, NotFound
from dormice.domain.execution import Execution, Micros
from dormice.domain.files import FileEntry
from dormice.domain.limits import Limits
from dormice.engine.artifact_room import ArtifactRoom
from dormice.engine.channel import Stalled
from dormice.engine.clock import Clock
from dormice.engine.file_tools import TookTooLong
from dormice.engine.files import Files
from dormice.engine.observer import Observer
from dormice.engine.orders import Caller
from dormice.engine.service import attempt
from dormice.engine.tasks import Tasks
from dormice.store.artifacts import ArtifactStore, Contents, TooMuch

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 30.0
LEAST_PAUSE_SECONDS = 0.05
AT_ONCE = 8
"""Collections under way."""
AT_ONCE_PER_ORGANIZATION = 2
MOST_SECONDS = 3_600.0
"""How long one may take."""
MOST_TIMEOUTS = 3
"""One that takes too long so many times is given up: it would wake its machine again and again."""
_PIECE_RECORDS = 50
_HOUR_US = 3_600_000_000
_FIRST_PAUSE_US, _LAST_PAUSE_US = 500_000, 60_000_000
_GONE = (NotFound, Conflict, Invalid)
_types = MimeTypes()  # by its own tables: what this host has besides changes nothing


class CollectionHints(Observer):
    """Which executions have a collection, and whether one of them has ended since the collector looked."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.due = asyncio.Event()

    def expect(self, execution_id: str) -> None:
        """Hear of a new one."""
        self.known.add(execution_id)

    def finished(self, execution: Execution) -> None:
        """Have the collector look."""
        if execution.id in self.known:
            self.due.set()


@dataclass(slots=True)
class _Failure:
    """What could not be collected."""

    again: Micros = 0
    """When it is tried again."""
    pause: int = _FIRST_PAUSE_US // 2
    timeouts: int = 0


class Collector:
    """The service."""

    def __init__(
        self,
        *,
        store: ArtifactStore,
        contents: Contents,
        files: Files,
        hints: CollectionHints,
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._store = store
        self._contents = contents
        self._files = files
        self._hints = hints
        self._tasks = tasks
        self._clock = clock
        self._limits = limits
        self._room = ArtifactRoom(store=store, contents=contents, limits=limits)
        self._busy: dict[str, str] = {}
        """Machines with a collection under way, and their organizations."""
        self._failures: dict[str, _Failure] = {}
        """By execution."""
        self._forget_at: Micros = 0

    async def load(self) -> None:
        """Learn what there is, and delete files that a crash has left. Raises OSError, StoreUnavailable."""
        self._hints.known |= await self._store.known()
        await self._contents.keep_only(await self._store.ids())
        self._hints.due.set()

    async def turn(self) -> None:
        """Begin what is due, once there may be something. Raises StoreUnavailable, OSError."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience()):
                await self._hints.due.wait()
        self._hints.due.clear()
        await self._expire()
        await self._forget()
        while len(self._busy) < AT_ONCE and (collection := await self._next()) is not None:
            self._busy[collection.machine_id] = collection.organization_id
            self._tasks.start(f"artifacts of {collection.execution_id}", partial(self._collect, collection))

    async def _next(self) -> Collection | None:
        """Return the oldest that may begin, of those whose organization has the fewest under way."""
        now, busy = self._clock.steady(), Counter(self._busy.values())
        waiting = [execution_id for execution_id, failure in self._failures.items() if failure.again > now]
        for most in range(AT_ONCE_PER_ORGANIZATION):
            others = [organization_id for organization_id, count in busy.items() if count > most]
            found = await self._store.due(limit=1, executions=waiting, machines=list(self._busy), organizations=others)
            if found:
                return found[0]
        return None

    def _patience(self) -> float:
        """Seconds until there is something to look at for sure."""
        now = self._clock.steady()
        next_again = min((one.again for one in self._failures.values() if one.again > now), default=None)
        if next_again is None:
            return LOOK_EVERY_SECONDS
        return min((next_again - now) / 1_000_000 + LEAST_PAUSE_SECONDS, LOOK_EVERY_SECONDS)

    async def _forget(self) -> None:
        """Once an hour: forget what retention has deleted."""
        now = self._clock.steady()
        if now < self._forget_at:
            return
        self._forget_at = now + _HOUR_US
        before = set(self._hints.known)  # all of them are in the store, if they were not deleted
        self._hints.known -= before - await self._store.known()
        for execution_id in self._failures.keys() - self._hints.known:
            del self._failures[execution_id]

    async def _expire(self) -> None:
        for artifact_id in await self._store.expired(self._clock.now(), limit=_PIECE_RECORDS):
            await self._store.delete(artifact_id)
            await self._contents.delete(artifact_id)

    async def _collect(self, collection: Collection) -> None:
        """Collect, or leave it to a later turn."""
        try:
            async with asyncio.timeout(MOST_SECONDS):
                artifacts, message = await self._copied(collection)
        except _GONE as error:
            await self._end(collection, CollectionEvent.LOST, [], error.message)
        except (DormiceError, OSError) as error:
            failure = self._failures.setdefault(collection.execution_id, _Failure())
            failure.timeouts += isinstance(error, TookTooLong | Stalled | TimeoutError)
            if failure.timeouts == MOST_TIMEOUTS:
                await self._end(collection, CollectionEvent.LOST, [], "looking for the files took too long")
            else:
                log.warning("the artifacts of %s are not collected yet: %s", collection.execution_id, error)
                failure.pause = min(failure.pause * 2, _LAST_PAUSE_US)
                failure.again = self._clock.steady() + failure.pause
        else:
            await self._end(collection, CollectionEvent.COPIED, artifacts, message)
        self._room.release(collection)
        del self._busy[collection.machine_id]
        self._hints.due.set()

    async def _end(
        self, collection: Collection, event: CollectionEvent, artifacts: list[Artifact], message: str
    ) -> None:
        """Record the end, however long the store takes to be there again: what was copied is not copied twice."""
        execution_id = collection.execution_id

        async def record() -> None:
            if not await self._store.end(execution_id, event, artifacts, message):
                for artifact in artifacts:
                    await self._contents.delete(artifact.id)

        await attempt(f"the end of the artifacts of {execution_id}", record)
        self._failures.pop(execution_id, None)

    async def _copied(self, collection: Collection) -> tuple[list[Artifact], str]:
        """Copy what matches. Return it, and what is to be said of what was left out."""
        if not collection.started:
            return [], "the command was never started"
        caller = Caller(organization_id=collection.organization_id, key_id="", admin=False)
        most = self._limits.artifacts_per_execution
        found = await self._files.glob(
            caller, collection.machine_id, collection.cwd, collection.patterns, limit=most + 1
        )
        entries = list({entry.name: entry for entry in found}.values())  # a machine may say what our tool would not
        left_out = ["there are more files than artifacts_per_execution"] if len(found) > most else []
        artifacts: list[Artifact] = []
        try:
            for entry in entries[:most]:
                copied = await self._copy(caller, collection, entry, sum(artifact.size for artifact in artifacts))
                if isinstance(copied, Artifact):
                    artifacts.append(copied)
                else:
                    left_out.append(copied)
        except BaseException:
            for artifact in artifacts:
                with suppress(OSError):
                    await self._contents.delete(artifact.id)
            raise
        return artifacts, "; ".join(left_out)[:4_000]

    async def _copy(self, caller: Caller, collection: Collection, entry: FileEntry, before: int) -> Artifact | str:
        """Copy one file; or say why not."""
        name = entry.name.decode("utf-8", "surrogateescape")
        shown = entry.name.decode("utf-8", "replace")
        limits = self._limits
        path = name if name.startswith("/") else f"{collection.cwd}/{name}"
        artifact_id = ids.artifact_id(self._clock.now() // 1000, self._clock.random(10))
        try:
            reading = await self._files.open(caller, collection.machine_id, path)
        except _GONE as error:  # the file, not the machine: that is found out at the next one, if it is so
            return error.message
        try:
            size = reading.entry.size
            if size > limits.artifact_bytes:
                return f"{shown}: larger than artifact_bytes"
            if before + size > limits.artifacts_total_bytes:
                return f"{shown}: together larger than artifacts_total_bytes"
            if refusal := await self._room.claim(collection, size):
                return f"{shown}: {refusal}"
            try:
                await reading.want(0, size)
                copied, sha256 = await self._contents.save(artifact_id, reading, most=size)
            finally:
                self._room.written(size)
        except (Conflict, TooMuch):
            return f"{shown}: it was changed while it was copied"
        finally:
            await reading.aclose()
        now = self._clock.now()
        return Artifact(
            id=artifact_id,
            execution_id=collection.execution_id,
            organization_id=collection.organization_id,
            machine_id=collection.machine_id,
            name=entry.name,
            size=copied,
            sha256=sha256,
            mime_type=_types.guess_type(shown)[0] or "application/octet-stream",
            created_at=now,
            expires_at=now + limits.keep_artifacts_hours * _HOUR_US if limits.keep_artifacts_hours else None,
        )
