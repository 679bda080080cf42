"""The way to a worker that fetches its work: what it is to be told, until its connection takes it."""

from __future__ import annotations

import asyncio

from dormice.domain.run import Run


class WorkChannel:
    """Holds the latest record of each run that the worker is to hear of, so never more than the worker has slots."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._woken: asyncio.Future[None] | None = None
        self.closed = False

    def send(self, run: Run) -> None:
        """Have the worker told of a run: that it is its, or that it has to end."""
        self._runs[run.id] = run
        self._wake()

    def close(self) -> None:
        """End the connection."""
        self.closed = True
        self._wake()

    async def take(self, seconds: float) -> list[Run]:
        """Return what the worker is to be told; none when there was nothing for so long, or when it is closed."""
        if not self._runs and not self.closed:
            loop = asyncio.get_running_loop()
            self._woken = loop.create_future()
            late = loop.call_later(seconds, self._wake)
            try:
                await self._woken
            finally:
                late.cancel()
                self._woken = None
        taken = [] if self.closed else list(self._runs.values())
        self._runs.clear()
        return taken

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
