"""Reads, on connections of their own: none waits for the writer, and each sees every commit that was answered.

The way to another thread and back costs some 80 microseconds, a read by primary key less than 20: what is known to be
short runs on the event loop's thread, whatever may be long on a small pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import apsw

from dormice.store.interface import StoreUnavailable
from dormice.store.sqlite.connection import open_reader
from dormice.store.sqlite.integrity import Watch

T = TypeVar("T")

SHORT_BYTES = 64 * 1024
SHORT_ROWS = 100
"""What may be read, or written, on the event loop's thread."""
_THREADS = 2


class Reader:
    """Runs queries."""

    def __init__(self, path: Path, watch: Watch) -> None:
        self._watch = watch
        self._near = open_reader(path)
        self._far = [open_reader(path) for _ in range(_THREADS)]
        self._idle: SimpleQueue[apsw.Connection] = SimpleQueue()
        for db in self._far:
            self._idle.put(db)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="store-reader")
        self._closed = False

    def point(self, query: Callable[[apsw.Connection], T]) -> T:
        """Run a short query here and now, on the event loop's thread. Raises StoreUnavailable."""
        self._check_open()
        return self._run(query, self._near)

    async def read(self, query: Callable[[apsw.Connection], T], *, short: bool) -> T:
        """Run a query where it is cheaper. Raises StoreUnavailable."""
        return self.point(query) if short else await self.scan(query)

    async def scan(self, query: Callable[[apsw.Connection], T]) -> T:
        """Run a query that may be long on the pool. Raises StoreUnavailable."""
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._scan, query)

    async def close(self) -> None:
        """Finish what is running, then close the connections."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown)
        for db in (self._near, *self._far):
            db.close()

    def _scan(self, query: Callable[[apsw.Connection], T]) -> T:
        db = self._idle.get()
        try:
            return self._run(query, db)
        finally:
            self._idle.put(db)

    def _run(self, query: Callable[[apsw.Connection], T], db: apsw.Connection) -> T:
        try:
            return query(db)
        except apsw.Error as error:
            raise self._watch.ours(error) from error

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        self._watch.check_reading()
