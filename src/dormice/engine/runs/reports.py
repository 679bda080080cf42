"""What a worker that fetches its work reports of its runs, as it stands in a batch of reports, and what it is answered."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import UNSET, Raw, Struct, UnsetType, field

from dormice.domain import documents


class EventReport(Struct, frozen=True, kw_only=True):
    """An event that is published together with what is reported."""

    topic: str | None = None
    """None: the topic of the run's tree."""
    event_type: str | None = None
    data: Raw = field(default_factory=documents.nothing)


class PublishReport(Struct, frozen=True, kw_only=True, tag_field="kind", tag="publish"):
    """Something is to be known of a run that is not recorded: sent again, it is published again."""

    run_id: str
    fence: int
    event: EventReport


class StepReport(Struct, frozen=True, kw_only=True, tag_field="kind", tag="step"):
    """A step has been run."""

    run_id: str
    fence: int
    step_key: str
    outputs: Raw = field(default_factory=documents.nothing)
    error: Raw = field(default_factory=documents.nothing)
    """What went wrong, if it failed for good."""
    events: Sequence[EventReport] = ()
    """Published with it, unless the step is known already."""


class ChildOrder(Struct, frozen=True, kw_only=True):
    """A run that is to be made below, and waited for."""

    step_key: str
    workflow_id: str
    payload: Raw = field(default_factory=documents.nothing)
    queue_name: str | None = None
    queue_concurrency_limit: int | None = None
    concurrency_key: str | None = None
    priority: int = 0
    run_timeout_seconds: int | None = None
    initial_state: Raw = field(default_factory=documents.nothing)


class WaitOrder(Struct, frozen=True, kw_only=True):
    """A moment, or an event, that is waited for."""

    step_key: str
    wait_type: str
    """`time`, `event` or `suspend`."""
    delay_ms: int | None = None
    """Ends the wait, from now on: a wait for time well, another one with an error."""
    topic: str | None = None
    question: Raw | UnsetType = UNSET
    """With `suspend`: what is asked, by an event `suspend_{step_key}` of the topic, once, when the wait begins."""


class SuspendReport(Struct, frozen=True, kw_only=True, tag_field="kind", tag="suspend"):
    """The worker has let go of a run, which waits for all of this."""

    run_id: str
    fence: int
    children: Sequence[ChildOrder] = ()
    waits: Sequence[WaitOrder] = ()


class CompleteReport(Struct, frozen=True, kw_only=True, tag_field="kind", tag="complete"):
    """A run has ended well."""

    run_id: str
    fence: int
    result: Raw = field(default_factory=documents.nothing)
    final_state: Raw = field(default_factory=documents.nothing)
    events: Sequence[EventReport] = ()
    """Published with it."""


class FailReport(Struct, frozen=True, kw_only=True, tag_field="kind", tag="fail"):
    """An attempt has ended badly."""

    run_id: str
    fence: int
    error: str
    retryable: bool = True
    final_state: Raw = field(default_factory=documents.nothing)


class EndedReport(Struct, frozen=True, kw_only=True, tag_field="kind", tag="ended"):
    """Nothing runs of a run any more whose end was asked for."""

    run_id: str
    fence: int


class AbandonedReport(Struct, frozen=True, kw_only=True, tag_field="kind", tag="abandoned"):
    """The worker gives a run back: it stops, or it is not sure that the run is still its, or what the run is to wait for is refused for now."""

    run_id: str
    fence: int
    pause_ms: int = 0
    """For how long no worker is given it."""


Report = StepReport | PublishReport | SuspendReport | CompleteReport | FailReport | EndedReport | AbandonedReport


class Verdict(StrEnum):
    """What became of a report."""

    OK = "ok"
    STALE = "stale"  # the run has ended, or is with another worker: the report changed nothing
    CANCELLED = "cancelled"  # the run's end was asked for: have it end, and report `ended`
    ERROR = "error"  # the report is not what it must be: sent again it will be refused again


class Answer(Struct, frozen=True, kw_only=True):
    """The verdict, and for people what is wrong."""

    status: Verdict
    message: str | UnsetType = UNSET


OK = Answer(status=Verdict.OK)
STALE = Answer(status=Verdict.STALE, message="the run has ended or is with another worker: this changed nothing")
CANCELLED = Answer(status=Verdict.CANCELLED, message="the run's end was asked for: have it end, then report `ended`")
