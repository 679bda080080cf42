"""Has the commands begin that a run waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from enum import Enum, auto

from dormice.workflows.backoff import Backoff
from dormice.workflows.link import LinkFailed
from dormice.workflows.messages import Command, StepDone
from dormice.workflows.reporter import Reporter

log = logging.getLogger("dormice.workflows")

MOST_REFUSALS = 6
"""A command is put off after so many, some two seconds."""
_AT_ONCE = 16
_NOT_NOW = frozenset({401, 403, 429, 503})
_NO_ANSWER = frozenset({0, 408, 500, 502, 504})
"""The command may have been begun."""
_CONFLICT = 409
_OF_THE_MACHINE = "INVALID_STATE"
"""The kind of conflict that is the machine's: it takes no commands. Any other is the run's."""


class Begun(Enum):
    """What became of a command."""

    WAITED_FOR = auto()  # it is begun, and the run waits for its end
    FAILED = auto()  # it cannot be begun, and its step is recorded so
    PUT_OFF = auto()  # it was refused for now
    GONE = auto()  # the run is not this worker's any more, or its end was asked for


class Commands:
    """Those of one attempt."""

    def __init__(self, reporter: Reporter, run_id: str, fence: int) -> None:
        self._reporter = reporter
        self._run_id = run_id
        self._fence = fence
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._waited_for = False

    async def begin(self, commands: Sequence[Command]) -> set[Begun]:
        """Return what became of them, when each is begun, has failed or is put off. It may be cancelled."""
        return set(await asyncio.gather(*map(self._begin, commands)))

    async def _begin(self, command: Command) -> Begun:
        command.fence = self._fence
        refusals, backoff = 0, Backoff()
        while True:
            try:
                async with self._room:
                    await self._reporter.begin_command(self._run_id, command)
            except LinkFailed as failure:
                if failure.status == _CONFLICT and failure.kind != _OF_THE_MACHINE:
                    return Begun.GONE
                if failure.status not in _NOT_NOW | _NO_ANSWER:
                    return await self._failed(command, failure)
                log.log(failure.level, "run %s: %r is not begun yet: %s", self._run_id, command.step_key, failure)
                refusals += failure.status in _NOT_NOW
            else:
                self._waited_for = True
                return Begun.WAITED_FOR
            # A run that waits for another command takes no place: for this one it may be asked on.
            if refusals >= MOST_REFUSALS and not self._waited_for:
                return Begun.PUT_OFF
            await backoff.pause()

    async def _failed(self, command: Command, failure: LinkFailed) -> Begun:
        error = {"message": f"it could not be begun: {failure}"}
        step = StepDone(run_id=self._run_id, fence=self._fence, step_key=command.step_key, error=error)
        await self._reporter.put(step)
        return Begun.FAILED
