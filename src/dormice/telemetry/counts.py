"""What is counted while the server runs, in plain numbers: whoever shows them reads them here."""

from __future__ import annotations

import asyncio
from typing import Never

from dormice.domain.execution import ErrorCode, Execution, ExecutionState
from dormice.domain.machine import Machine, Phase
from dormice.domain.run import Run, RunState
from dormice.domain.webhook import DeliveryEvent, DeliveryState
from dormice.engine.observer import Observer
from dormice.histogram import SECONDS, Histogram
from dormice.store.webhooks import Attempt
from dormice.workers.interface import PushAnswer

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
OTHER = "other"
"""In place of a method or a route that is none of ours: a client can choose them at will."""
LAG_EVERY_SECONDS = 0.5
_RUN_SECONDS = (*SECONDS, 300.0, 1800.0, 7200.0)
_SECOND_US = 1_000_000


class Counts(Observer):
    """Everything that has happened since the server began. Used on the event loop's thread only."""

    def __init__(self) -> None:
        self.created_executions = 0
        self.ends: dict[tuple[ExecutionState, ErrorCode | None], int] = {}
        """How many executions ended in a state, for a reason."""
        self.start = Histogram(SECONDS)
        """Seconds from creation to start."""
        self.run = Histogram(_RUN_SECONDS)
        """Seconds from start to end."""
        self.stdout_bytes = 0
        self.stderr_bytes = 0
        self.lost_bytes = 0
        """Output that should be kept and is not."""
        self.transitions: dict[tuple[Phase, Phase], int] = {}
        self.machine_start = Histogram(SECONDS)
        """Seconds from the order to start to the guest's first answer."""
        self.created_runs = 0
        self.run_ends: dict[RunState, int] = {}
        """How many runs ended in a state."""
        self.failed_attempts = 0
        """Attempts of runs whose worker said that they failed."""
        self.lost_attempts = 0
        """Attempts of runs whose worker was lost, or gave them up."""
        self.pushes: dict[PushAnswer, int] = {}
        self.pulls = 0
        self.published_events = 0
        self.accepted_attempts = 0
        """Requests to webhooks that were answered as they should be."""
        self.refused_attempts = 0
        """Those that were answered otherwise."""
        self.unanswered_attempts = 0
        self.delivery_ends: dict[DeliveryState, int] = {}
        """How many deliveries ended in a state."""
        self.requests: dict[tuple[str, str, int], Histogram] = {}
        """Seconds to the end of the answer, by method, route and status."""
        self.loop_lag = Histogram(SECONDS)
        """Seconds that a timer of the event loop was late."""

    # The engine's observer.

    def created(self, execution: Execution) -> None:  # noqa: ARG002 - how many is all that counts
        """Count it."""
        self.created_executions += 1

    def started(self, execution: Execution) -> None:
        """Take how long that took."""
        if execution.started_at is not None:
            self.start.observe((execution.started_at - execution.created_at) / _SECOND_US)

    def wrote(self, stdout_bytes: int, stderr_bytes: int) -> None:
        """Add it up."""
        self.stdout_bytes += stdout_bytes
        self.stderr_bytes += stderr_bytes

    def lost(self, output_bytes: int) -> None:
        """Add it up."""
        self.lost_bytes += output_bytes

    def finished(self, execution: Execution) -> None:
        """Count it, and take how long it ran."""
        end = execution.state, execution.error_code
        self.ends[end] = self.ends.get(end, 0) + 1
        if execution.started_at is not None and execution.completed_at is not None:
            self.run.observe((execution.completed_at - execution.started_at) / _SECOND_US)

    def machine_moved(self, before: Machine, after: Machine) -> None:
        """Count a change of phase, and take how long a start took."""
        if before.phase is after.phase:
            return
        move = before.phase, after.phase
        self.transitions[move] = self.transitions.get(move, 0) + 1
        if move == (Phase.STARTING, Phase.RUNNING):
            self.machine_start.observe((after.last_transition_at - before.last_transition_at) / _SECOND_US)

    def run_moved(self, before: Run | None, after: Run) -> None:
        """Count a new run, an end, and attempts that came to nothing."""
        if before is None:
            self.created_runs += 1
        if after.terminal:
            self.run_ends[after.state] = self.run_ends.get(after.state, 0) + 1
        self.failed_attempts += after.retry_count - (before.retry_count if before is not None else 0)
        self.lost_attempts += after.crashes - (before.crashes if before is not None else 0)

    def pushed(self, answer: PushAnswer) -> None:
        """Count it."""
        self.pushes[answer] = self.pushes.get(answer, 0) + 1

    def pulled(self) -> None:
        """Count it."""
        self.pulls += 1

    def published(self, events: int) -> None:
        """Add them up."""
        self.published_events += events

    def attempted(self, attempt: Attempt) -> None:
        """Count it, and the delivery if that was the end of it."""
        if attempt.event is DeliveryEvent.ACCEPTED:
            self.accepted_attempts += 1
        elif attempt.status is not None:
            self.refused_attempts += 1
        else:
            self.unanswered_attempts += 1
        state = attempt.delivery.on(attempt.event)
        if state is not DeliveryState.PENDING:
            self.delivery_ends[state] = self.delivery_ends.get(state, 0) + 1

    # The API's.

    def served(self, method: str, route: str, status: int, seconds: float) -> None:
        """Take a request whose answer has been sent; status 0: its client left before."""
        key = method, route, status
        histogram = self.requests.get(key)
        if histogram is None:
            key = method if method in METHODS else OTHER, route or OTHER, status
            histogram = self.requests.get(key)
            if histogram is None:
                histogram = self.requests[key] = Histogram(SECONDS)
        histogram.observe(seconds)

    async def watch_loop(self) -> Never:
        """See how late the event loop is, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY_SECONDS
            await asyncio.sleep(LAG_EVERY_SECONDS)
            self.loop_lag.observe(max(loop.time() - due, 0))
