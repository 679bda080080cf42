"""Who watches the engine at work: a port for metrics and traces. It changes nothing, and the engine never waits for it."""

from __future__ import annotations

from collections.abc import Sequence

from dormice.domain.execution import Execution
from dormice.domain.machine import Machine
from dormice.domain.run import Run
from dormice.store.webhooks import Attempt
from dormice.workers.interface import PushAnswer


class Observer:
    """Hears each thing once, after its commit; this one takes no notice. A method returns at once and raises nothing.

    What was committed and not yet told when the server dies is never told.
    """

    def created(self, execution: Execution) -> None:
        """Hear of a new execution, in the context of the request that made it."""

    def started(self, execution: Execution) -> None:
        """Hear of an execution whose command has been started."""

    def wrote(self, stdout_bytes: int, stderr_bytes: int) -> None:
        """Hear of output: how many bytes came to each stream."""

    def lost(self, output_bytes: int) -> None:
        """Hear that so many bytes of output that should be kept are not."""

    def finished(self, execution: Execution) -> None:
        """Hear of an execution that has ended."""

    def machine_moved(self, before: Machine, after: Machine) -> None:
        """Hear of a change of a machine."""

    def run_moved(self, before: Run | None, after: Run) -> None:
        """Hear of a change of a run; `before` is None for a new one. States in between may be left out, but never an end."""

    def pushed(self, answer: PushAnswer) -> None:
        """Hear what became of giving a run to a worker that is called."""

    def pulled(self) -> None:
        """Hear that a run was given to a worker that fetches its work."""

    def published(self, events: int) -> None:
        """Hear that so many events were published."""

    def attempted(self, attempt: Attempt) -> None:
        """Hear what came of sending an event to a webhook."""

    def progressed(self, before: Execution, after: Execution) -> None:
        """Hear of what a guest reported: a start, output, an end, or several of them."""
        if before.started_at is None and after.started_at is not None:
            self.started(after)
        stdout_bytes, stderr_bytes = after.stdout_bytes - before.stdout_bytes, after.stderr_bytes - before.stderr_bytes
        if stdout_bytes or stderr_bytes:
            self.wrote(stdout_bytes, stderr_bytes)
        if after.terminal:
            self.finished(after)


class Observers(Observer):
    """Several of them, told one after another."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def created(self, execution: Execution) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.created(execution)

    def started(self, execution: Execution) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.started(execution)

    def wrote(self, stdout_bytes: int, stderr_bytes: int) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.wrote(stdout_bytes, stderr_bytes)

    def lost(self, output_bytes: int) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.lost(output_bytes)

    def finished(self, execution: Execution) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.finished(execution)

    def machine_moved(self, before: Machine, after: Machine) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.machine_moved(before, after)

    def run_moved(self, before: Run | None, after: Run) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.run_moved(before, after)

    def pushed(self, answer: PushAnswer) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.pushed(answer)

    def pulled(self) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.pulled()

    def published(self, events: int) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.published(events)

    def attempted(self, attempt: Attempt) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.attempted(attempt)
