"""One attempt of one run: the function is run to its end, to a wait, or until it has to stop, and that is reported."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from enum import Enum, auto

from dormice.workflows import documents
from dormice.workflows.backoff import spread
from dormice.workflows.commands import Begun, Commands
from dormice.workflows.context import Context
from dormice.workflows.definition import Workflow
from dormice.workflows.errors import LetGo, NonRetryable
from dormice.workflows.journal import Journal
from dormice.workflows.lifecycle import START_KEY, LifecycleEvents
from dormice.workflows.messages import (
    Abandoned,
    Answer,
    Assignment,
    Completed,
    Ended,
    Failed,
    Report,
    StepDone,
    Suspended,
    Told,
)
from dormice.workflows.reporter import Reporter

log = logging.getLogger("dormice.workflows")

_MOST_NAMED = 3
_PUT_OFF_MS = 10_000
"""After at most so long a run is given again whose commands could not be begun for now."""


class Stop(Enum):
    """Why an attempt has to stop."""

    CANCELLED = auto()  # the run's end was asked for
    ABANDONED = auto()  # the worker stops, or the run is not its for certain: it is given back
    LOST = auto()  # the run is not this worker's any more


class Attempt:
    """Run by one task."""

    def __init__(
        self,
        assignment: Assignment,
        workflow: Workflow[object, object] | None,
        reporter: Reporter,
        threads: Executor,
    ) -> None:
        self.run_id = assignment.run_id
        self.fence = assignment.fence
        self._assignment = assignment
        self._workflow = workflow
        self._reporter = reporter
        self._journal = Journal(assignment.steps)
        self._lifecycle = LifecycleEvents(assignment) if workflow is not None and workflow.events else None
        self._context = Context(assignment, self._journal, self, threads, self._lifecycle)
        self._task: asyncio.Task[object] | None = None
        """While the function is run, or commands are begun."""
        self._answer: asyncio.Future[Answer] | None = None
        """What is waited for once the function has ended."""
        self._stop: Stop | None = None
        self.ended = asyncio.Event()
        """Nothing runs of it any more, and all is reported."""

    def __str__(self) -> str:
        return f"run {self.run_id} of {self._assignment.workflow_id}"

    @property
    def lost(self) -> bool:
        """Whether it is not to be spoken of any more."""
        return self._stop is Stop.LOST

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop is not None

    def runs(self, task: asyncio.Task[object]) -> bool:
        """Whether a task runs the function, or a step of it."""
        return task is self._task or self._journal.runs(task)

    def stop(self, why: Stop) -> None:
        """Have it stop. A run that is lost stays lost, and one that was cancelled is not given back."""
        if self._stop is None or (self._stop is not Stop.LOST and why is not Stop.ABANDONED):
            self._stop = why
        self._journal.cancel(but=self._task)
        if self._task is not None:
            self._task.cancel()
        if self.lost and self._answer is not None:
            self._answer.cancel()

    async def run(self) -> None:
        """Run the function and report what came of it."""
        try:
            report = await self._outcome()
            if isinstance(report, Suspended) and self._journal.commands:
                report = await self._begin_commands(report)
            while report is not None and not self.lost:
                self._answer = self._reporter.put(report)
                await asyncio.wait([self._answer])
                report = None if self._answer.cancelled() else self._after(report, self._answer.result())
        finally:
            self.ended.set()

    async def _begin_commands(self, report: Suspended) -> Report | None:
        """Have the commands run that the run waits for; those that cannot be begun are steps that have failed."""
        self._task = task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine is run by one
        try:
            begun = await Commands(self._reporter, self.run_id, self.fence).begin(self._journal.commands)
        except asyncio.CancelledError:
            if self._stop is None:
                raise
            return self._stopped()
        finally:
            self._task = None
            while self._stop is not None and task.cancelling():
                task.uncancel()
        if Begun.GONE in begun:
            return None
        if Begun.WAITED_FOR not in begun and Begun.PUT_OFF in begun:
            pause_ms = round(spread(_PUT_OFF_MS))
            return Abandoned(run_id=self.run_id, fence=self.fence, pause_ms=pause_ms)
        if report.children or report.waits:
            return report
        # All that the run waited for has failed already: it goes on by way of its queue.
        return None if Begun.WAITED_FOR in begun else Abandoned(run_id=self.run_id, fence=self.fence)

    def _stopped(self) -> Report | None:
        """What is reported of an attempt that had to stop."""
        match self._stop:
            case Stop.CANCELLED:
                return Ended(run_id=self.run_id, fence=self.fence)
            case Stop.ABANDONED:
                return Abandoned(run_id=self.run_id, fence=self.fence)
            case _:
                return None

    def _after(self, report: Report, answer: Answer) -> Report | None:
        cancelled = answer.status == "cancelled" or (isinstance(report, Abandoned) and self._stop is Stop.CANCELLED)
        if cancelled and not isinstance(report, Ended):
            return Ended(run_id=self.run_id, fence=self.fence)
        if answer.status != "error":
            return None
        log.error("run %s: what was reported is refused: %s", self.run_id, answer.message)
        if isinstance(report, Completed | Suspended):
            return self._failed(answer.message, retryable=False)
        return None

    def tell(self, report: StepDone | Told) -> None:
        """Have something reported, and wait for nothing."""
        self._reporter.put(report).add_done_callback(self._told)

    def _told(self, answer: asyncio.Future[Answer]) -> None:
        if not answer.cancelled() and answer.result().status == "error":
            log.error("run %s: what it told is refused: %s", self.run_id, answer.result().message)

    async def record(self, step: StepDone) -> None:
        """Return once the server has a step."""
        if self.lost:
            raise LetGo
        answer = await self._reporter.put(step)
        match answer.status:
            case "ok":
                return
            case "cancelled":
                self.stop(Stop.CANCELLED)
                raise asyncio.CancelledError
            case "error":
                raise NonRetryable(answer.message)
            case _:
                self.stop(Stop.LOST)
                raise LetGo

    async def _outcome(self) -> Report | None:
        if self._workflow is None:
            return self._failed(f"this worker has no workflow {self._assignment.workflow_id!r}", retryable=False)
        failure: BaseException | None = None
        result: object = None
        self._task = task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine is run by one
        try:
            result = await self._call(self._workflow)
        except (LetGo, asyncio.CancelledError, Exception) as error:  # noqa: BLE001 - what a user's function raises is reported
            failure = error
        self._task = None
        while task.cancelling():
            task.uncancel()
        return await self._report_of(result, failure)

    async def _call(self, workflow: Workflow[object, object]) -> object:
        if self._lifecycle is not None and self._journal.begin(START_KEY) is None:
            self.tell(self._lifecycle.start())
        if not workflow.takes_payload:
            return await workflow.function(self._context)
        payload = documents.decode(self._assignment.payload, workflow.payload_type, "the payload")
        return await workflow.function(self._context, payload)

    async def _report_of(self, result: object, failure: BaseException | None) -> Report | None:
        if self._stop is None and self._journal.waiting and not isinstance(failure, Exception):
            await self._journal.settled()
        else:
            self._journal.cancel(but=None)
            await self._journal.settled()
        match self._stop:
            case Stop.LOST | Stop.CANCELLED:
                return self._stopped()
            case Stop.ABANDONED if failure is not None:
                return self._stopped()
        missed = ", ".join(self._journal.never_awaited[:_MOST_NAMED])
        if isinstance(failure, Exception):
            log.info("%s failed: %r", self, failure, exc_info=failure)
            note = f" (never awaited: {missed})" if missed else ""
            error = f"{type(failure).__name__}: {failure}{note}"
            return self._failed(error, retryable=not isinstance(failure, NonRetryable))
        if self._journal.waiting:
            waits, children = self._journal.waits, self._journal.children
            return Suspended(run_id=self.run_id, fence=self.fence, children=children, waits=waits)
        if failure is not None:
            return self._failed("the workflow cancelled itself", retryable=True)
        if missed:
            error = f"never awaited, so nothing of it was done: {missed}"
            log.error("%s fails: %s", self, error)
            return self._failed(error, retryable=False)
        try:
            document = documents.encode(result, f"the result of {self._assignment.workflow_id}")
        except NonRetryable as error:
            return self._failed(str(error), retryable=False)
        events = () if self._lifecycle is None else self._lifecycle.finish(document)
        return Completed(run_id=self.run_id, fence=self.fence, result=document, events=events)

    def _failed(self, error: str, *, retryable: bool) -> Failed:
        return Failed(run_id=self.run_id, fence=self.fence, error=error, retryable=retryable)
