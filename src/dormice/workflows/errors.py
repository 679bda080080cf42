"""What can go wrong in a workflow, as one tree.

    WorkflowError
    ├── RunFailed                  what a client ran has failed, or was cancelled
    └── NonRetryable               the run fails at once: another attempt would fail in the same way
        ├── NonDeterministic       the function did not do what it has to do to be replayed
        ├── NotJson                a value cannot be written as JSON, or read back as what it is annotated as
        ├── StepFailed             a step has failed in all its attempts
        ├── ChildFailed            a child has failed, or was cancelled
        └── EventTimeout           (also a TimeoutError) an event, or an answer, did not come in time

Any other exception that leaves a workflow function fails the attempt, and there is another one as long as its retries last.
"""

from __future__ import annotations


class WorkflowError(Exception):
    """Every error of a workflow that is ours."""


class RunFailed(WorkflowError):
    """A run that a client waited for has failed, or was cancelled."""

    def __init__(self, run_id: str, message: str) -> None:
        super().__init__(f"run {run_id} failed: {message}")
        self.run_id = run_id
        self.message = message


class NonRetryable(WorkflowError):
    """Raise it, or an error derived from it, in a workflow or a step that is not to be tried again."""


class NonDeterministic(NonRetryable):
    """The workflow cannot be replayed as it is: for instance, two of its steps have the same key."""


class NotJson(NonRetryable):
    """A value is neither JSON, nor a dataclass, a msgspec Struct or another type that msgspec knows."""


class StepFailed(NonRetryable):
    """A step has failed for good. Like its result, this is recorded: a replay raises it again."""

    def __init__(self, step_key: str, message: str) -> None:
        super().__init__(f"step {step_key!r} failed: {message}")
        self.step_key = step_key
        self.message = message


class ChildFailed(NonRetryable):
    """A child has failed, or was cancelled."""

    def __init__(self, step_key: str, message: str, run_id: str | None) -> None:
        super().__init__(f"child {step_key!r} failed: {message}")
        self.step_key = step_key
        self.message = message
        self.run_id = run_id


class EventTimeout(NonRetryable, TimeoutError):
    """No event, or no answer, came in the time that was given."""

    def __init__(self, step_key: str) -> None:
        super().__init__(f"event {step_key!r} did not come in time")
        self.step_key = step_key


class LetGo(BaseException):
    """Unwinds a workflow function that waits, or whose run is not this worker's any more. Not an Exception, so that `except Exception` lets it pass."""
