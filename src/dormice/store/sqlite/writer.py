"""The one writer: it has the only connection that writes, and a thread of its own.

Dynamic group commit: what has queued up while the last commit was under way shares the next one, so an idle store commits
at once and a busy one pays one fsync for many operations. Each operation has its own savepoint: one that raises is undone
alone. Nobody is answered before the commit is durable; then a whole batch is answered with one call into the event loop.

The way to the thread and back costs as much as an fsync of a fast disk, and two threads that take the interpreter from each other
at every statement cost more. So short operations that come in one turn of the event loop, while the thread is idle and the disk
quick, are committed where they are asked for, together, on the loop's thread (docs/decisions/0008). When the last such commit was
of several, there is much to do, and the next one waits as long as each turn brings more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, TypeVar

import apsw

from dormice.store.interface import Commits, StoreUnavailable
from dormice.store.sqlite.connection import BUSY_MS
from dormice.store.sqlite.integrity import Watch

T = TypeVar("T")

BATCH_LIMIT = 256
"""Operations per commit, at most: bounds how long the first one waits for the last."""
NEAR_LIMIT = 64
"""Short operations that the event loop commits in one turn, at most: some 5 ms of work, which other requests wait for."""
GATHERED = 32
"""Short operations that are committed without a look at whether the next turn brings more."""
QUICK_SECONDS = 0.001
"""A disk that needs longer to make a commit durable is not worth holding the event loop for."""


@dataclass(frozen=True, slots=True)
class _Job:
    operation: Callable[[apsw.Connection], Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception


class Writer:
    """Runs operations, each a whole transaction to its caller, in the order in which they were given."""

    def __init__(self, db: apsw.Connection, watch: Watch) -> None:
        """Take over the connection. Must be called, as all methods, on the thread of the running event loop."""
        self._db = db
        self._watch = watch
        self.commits = Commits()
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._queued = 0
        """Jobs that the thread was given and has not answered: while there are any, the connection is the thread's."""
        self._near: list[_Job] = []
        """Short jobs that the loop is about to commit."""
        self._seen = 0
        """How many of them there were a turn before."""
        self._gathers = False
        """Whether more is waited for: the last commit of the loop was of several."""
        self._quick = True
        """Whether the disk was quick the last time. Whose the connection is, the loop or the thread, sets it."""
        self._closed = False
        self._ended = self._loop.create_future()
        # A daemon, so that a process which ends without close() ends: to the file that is one more crash.
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._thread.start()

    def run(self, operation: Callable[[apsw.Connection], T], *, short: bool = False) -> asyncio.Future[T]:
        """Run the operation; the future has what it returned once its commit is durable.

        `short`: it takes no longer than a few statements by primary key. It raises what the operation raised (it has changed
        nothing then), and StoreUnavailable.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreUnavailable("the store is closed"))
            return future
        if short and self._quick and not self._queued:
            if not self._near:
                self._seen = 0
                self._loop.call_soon(self._commit_near)
            self._near.append(_Job(operation, future))
        else:
            self._queue_near()
            self._queue(_Job(operation, future))
        return future

    def _queue(self, job: _Job) -> None:
        self._queued += 1
        self._jobs.put(job)

    def _queue_near(self) -> None:
        """Give the thread what would have been committed here: something has come that it must go before, or together with."""
        near, self._near = self._near, []
        for job in near:
            self._queue(job)

    def _commit_near(self) -> None:
        if self._gathers and self._seen < len(self._near) < GATHERED:
            self._seen = len(self._near)
            self._loop.call_soon(self._commit_near)
        elif len(self._near) > NEAR_LIMIT or (self._near and not self._begin_at_once()):
            self._queue_near()
        elif self._near:
            batch, self._near = self._near, []
            self._gathers = len(batch) > 1
            _resolve(batch, self._commit(batch, begun=True))

    def _begin_at_once(self) -> bool:
        """Begin a transaction, unless there is something to wait for or to report: another process may hold the file."""
        self._db.set_busy_timeout(0)
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except apsw.Error:
            return False
        finally:
            self._db.set_busy_timeout(BUSY_MS)
        return True

    async def close(self) -> None:
        """Finish what is queued, then close the connection. Repeated calls wait for the same end."""
        if not self._closed:
            self._closed = True
            self._queue_near()
            self._jobs.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()

    def _serve(self) -> None:
        try:
            while batch := self._next_batch():
                self._answer(batch, self._commit(batch))
        finally:
            self._db.close()
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ended.set_result, None)

    def _next_batch(self) -> list[_Job]:
        """Wait for a job and take what else is there; empty at the end."""
        job = self._jobs.get()
        batch: list[_Job] = []
        with suppress(Empty):
            while job is not None:
                batch.append(job)
                if len(batch) == BATCH_LIMIT:
                    return batch
                job = self._jobs.get_nowait()
            if batch:
                self._jobs.put(None)  # nothing follows the end: it is met again at the next turn
        return batch

    def _commit(self, batch: Sequence[_Job], *, begun: bool = False) -> list[Any]:
        """Return each job's result or _Failure, durable; a lost transaction fails them all."""
        began = monotonic()
        try:
            self._watch.check_writing()
            if not begun:
                self._db.execute("BEGIN IMMEDIATE")
            if len(batch) == 1:
                results = [batch[0].operation(self._db)]
            else:
                results = [self._apply(job.operation) for job in batch]
            applied = monotonic()
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the callers who wait for the commit
            system_errno = self._db.system_errno
            with suppress(apsw.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            failure = self._watch.ours(error, system_errno)
            self.commits.failed += isinstance(failure, StoreUnavailable)
            self._quick = False
            return [_Failure(failure) for _ in batch]
        ended = monotonic()
        self._quick = ended - applied < QUICK_SECONDS
        self.commits.seconds.observe(ended - began)
        self.commits.operations.observe(len(batch))
        return results

    def _apply(self, operation: Callable[[apsw.Connection], Any]) -> Any:
        """Run one operation in its savepoint. Raises when SQLite has given up the whole transaction."""
        db = self._db
        db.execute("SAVEPOINT operation")
        try:
            result = operation(db)
        except Exception as error:  # whatever it is, it belongs to the caller who waits for it
            if not db.in_transaction:
                raise
            db.execute("ROLLBACK TO operation")
            result = _Failure(self._watch.ours(error, db.system_errno))
        db.execute("RELEASE operation")
        return result

    def _answer(self, batch: Sequence[_Job], results: Sequence[Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            self._loop.call_soon_threadsafe(self._answered, batch, results)

    def _answered(self, batch: Sequence[_Job], results: Sequence[Any]) -> None:
        self._queued -= len(batch)
        _resolve(batch, results)


def _resolve(batch: Sequence[_Job], results: Sequence[Any]) -> None:
    for job, result in zip(batch, results, strict=True):
        if job.future.done():  # its caller was cancelled
            continue
        if isinstance(result, _Failure):
            job.future.set_exception(result.error)
        else:
            job.future.set_result(result)
