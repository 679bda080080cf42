"""What a run tells of itself on the topic of its tree, if its workflow asks for that. Names and shapes are those of polos-sdk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Raw

from dormice.workflows import documents
from dormice.workflows.messages import Assignment, NewEvent, StepDone, Told
from dormice.workflows.steps import Retry

START_KEY = "publish_start"
"""The step that says that the start was told: it is told once, however often the function is run."""


class LifecycleEvents:
    """Of one run. No event tells of a failure. The start of a step does not repeat its arguments, which need not be JSON."""

    def __init__(self, assignment: Assignment) -> None:
        self._run = assignment
        self._metadata = {"execution_id": assignment.run_id, "workflow_id": assignment.workflow_id}

    def start(self) -> StepDone:
        """What says that the run has started."""
        event = self._event("workflow_start", {"payload": self._run.payload})
        return StepDone(run_id=self._run.run_id, fence=self._run.fence, step_key=START_KEY, events=[event])

    def finish(self, result: Raw) -> list[NewEvent]:
        """What says that the run has ended well."""
        return [self._event("workflow_finish", {"result": result})]

    def step_start(self, step_key: str, function: Callable[..., Any], retry: Retry) -> Told:
        """What says that a step is run now; a step that is run again says so again."""
        data = {
            "func": getattr(function, "__name__", type(function).__name__),
            "max_retries": retry.attempts - 1,
            "base_delay": retry.first_pause,
            "max_delay": retry.longest_pause,
        }
        event = self._step_event("step_start", step_key, data)
        return Told(run_id=self._run.run_id, fence=self._run.fence, event=event)

    def step_finish(self, step_key: str, result: Raw) -> list[NewEvent]:
        """What says that a step has ended well."""
        return [self._step_event("step_finish", step_key, {"result": result})]

    def _step_event(self, event_type: str, step_key: str, data: Mapping[str, object]) -> NewEvent:
        return self._event(event_type, {"step_key": step_key, "step_type": "run", "data": data})

    def _event(self, event_type: str, data: Mapping[str, object]) -> NewEvent:
        whole = {**data, "_metadata": self._metadata}
        return NewEvent(event_type=event_type, data=documents.encode(whole, f"the event {event_type}"))
