"""Threads for work that blocks, and waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Threads:
    """A few threads of one kind."""

    def __init__(self, count: int, name: str, *, initializer: Callable[[], None]) -> None:
        """Each begins with `initializer`."""
        self._executor = ThreadPoolExecutor(count, name, initializer=initializer)

    async def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do the work, and return what it returns. It is done to its end, and waited for, also when the caller is cancelled."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, lambda: work(*args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # Nobody can stop the thread, and nobody else may touch the machine before it is done.
            await asyncio.wait([future])
            raise

    def close(self) -> None:
        """End them. Blocking, until what they do is done."""
        self._executor.shutdown()
