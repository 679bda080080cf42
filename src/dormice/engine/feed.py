"""Hints that something changed. The store is the truth: a lost hint costs latency, never a result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from dormice.domain.execution import Execution
from dormice.domain.run import Run
from dormice.engine.clock import Clock

News = Execution | Run
"""A committed record, which spares those who hear of it reading it."""
_Record = TypeVar("_Record", Execution, Run)
_T = TypeVar("_T")


class Listener:
    """Hears of its keys from `__enter__` to `__exit__`. Enter before looking, so that no change falls between."""

    def __init__(self, listeners: dict[str, list[Listener]], keys: Sequence[str]) -> None:
        self._listeners = listeners
        self._keys = keys
        self._heard: asyncio.Future[News | None] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> Self:
        for key in self._keys:
            self._listeners.setdefault(key, []).append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for key in self._keys:
            others = self._listeners.get(key)
            if others is not None and self in others:
                others.remove(self)
                if not others:
                    del self._listeners[key]

    def hear(self, news: News | None) -> None:
        """Be told."""
        if not self._heard.done():
            self._heard.set_result(news)

    async def wait(self, seconds: float) -> News | None:
        """Wait for a hint, at most so many seconds. Returns what is committed, if the hint came with it."""
        if not self._heard.done():
            late = asyncio.get_running_loop().call_later(max(seconds, 0), self.hear, None)
            try:
                return await self._heard
            finally:
                late.cancel()
        return self._heard.result()


class Feed:
    """Wakes whoever waits for a key (the id of an execution, a machine, a run). Keeps nothing for those who come later."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {}
        self.closing = False
        """The server stops: whoever waits is to answer with what there is."""

    def close(self) -> None:
        """Wake everybody: the server stops."""
        self.closing = True
        for key in list(self._listeners):
            self.notify(key)

    def notify(self, key: str, news: News | None = None) -> None:
        """Wake everybody who listens to the key now."""
        for listener in self._listeners.pop(key, ()):
            listener.hear(news)

    def listen(self, *keys: str) -> Listener:
        """Return a listener to any of these keys, to be used as a context manager."""
        return Listener(self._listeners, keys)

    async def until(
        self,
        key: str,
        record: _T,
        wait_ms: int,
        *,
        clock: Clock,
        reread: Callable[[_T], Awaitable[_T]],
        enough: Callable[[_T], bool],
    ) -> _T:
        """Return what the key tells of once it is `enough`; as it is when that time is over, or the server stops."""
        deadline = clock.steady() + wait_ms * 1000
        while not (enough(record) or self.closing) and (left := deadline - clock.steady()) > 0:
            with self.listen(key) as hint:
                record = await reread(record)
                if not enough(record):
                    await hint.wait(left / 1_000_000)
                    record = await reread(record)
        return record

    async def ended(
        self,
        record: _Record,
        wait_ms: int,
        *,
        clock: Clock,
        reread: Callable[[_Record], Awaitable[_Record]],
        enough: Callable[[_Record], bool] = lambda _: False,
    ) -> _Record:
        """Return a record once it has ended, or is `enough`; as it is when that time is over, or the server stops."""
        deadline = clock.steady() + wait_ms * 1000
        while not (record.terminal or enough(record) or self.closing) and (left := deadline - clock.steady()) > 0:
            with self.listen(record.id) as hint:
                record = await reread(record)
                if record.terminal or enough(record):
                    break
                news = await hint.wait(left / 1_000_000)
            record = news if isinstance(news, type(record)) else await reread(record)
        return record
