"""What the server sends, a JSON document a line, and what it is told in return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

NULL = Raw(b"null")


class Connected(Struct, kw_only=True, tag_field="type", tag="connected"):
    """The first line of a connection."""

    worker_id: str
    lost_ms: int
    runs: Mapping[str, int]


class Step(Struct, kw_only=True):
    """A step that has been run before."""

    step_key: str
    outputs: Raw = NULL
    error: Raw = NULL
    source_run_id: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it failed for good."""
        return bytes(self.error) != b"null"


class Assignment(Struct, kw_only=True, tag_field="type", tag="run"):
    """A run that this worker is to run, with all that is known of it."""

    run_id: str
    fence: int
    workflow_id: str
    created_at: str
    payload: Raw = NULL
    retry_count: int = 0
    parent_id: str | None = None
    root_id: str = ""
    root_workflow_id: str = ""
    step_key: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    run_timeout_seconds: int | None = None
    initial_state: Raw = NULL
    steps: Sequence[Step] = ()

    @property
    def topic(self) -> str:
        """Where the tree of the run publishes."""
        return f"workflow/{self.root_workflow_id}/{self.root_id}"


class Cancel(Struct, kw_only=True, tag_field="type", tag="cancel"):
    """A run that this worker is to end."""

    run_id: str
    fence: int


class NewEvent(Struct, kw_only=True, omit_defaults=True):
    """An event to be published, on the topic of the run's tree if it names none."""

    topic: str | None = None
    event_type: str | None = None
    data: Raw


class Told(Struct, kw_only=True, tag_field="kind", tag="publish"):
    """What is to be known of a run, and is not recorded."""

    run_id: str
    fence: int
    event: NewEvent


class StepDone(Struct, kw_only=True, tag_field="kind", tag="step", omit_defaults=True):
    """A step has been run."""

    run_id: str
    fence: int
    step_key: str
    outputs: Raw | None = None
    error: Mapping[str, str] | None = None
    events: Sequence[NewEvent] = ()


class Child(Struct, kw_only=True, omit_defaults=True):
    """A run to be made below, and waited for."""

    step_key: str
    workflow_id: str
    payload: Raw
    queue_name: str | None = None
    queue_concurrency_limit: int | None = None
    concurrency_key: str | None = None
    priority: int = 0
    run_timeout_seconds: int | None = None


class Wait(Struct, kw_only=True, omit_defaults=True):
    """A moment, or an event, that is waited for."""

    step_key: str
    wait_type: str
    delay_ms: int | None = None
    topic: str | None = None
    question: Raw | UnsetType = UNSET
    """What is asked when the wait begins, if people are to answer."""


class Command(Struct, kw_only=True):
    """A command to be run on a machine, and waited for."""

    step_key: str
    machine_id: str
    execution: Mapping[str, object]
    worker_id: str | None = None
    fence: int = 0


class Suspended(Struct, kw_only=True, tag_field="kind", tag="suspend"):
    """A run waits for all of this."""

    run_id: str
    fence: int
    children: Sequence[Child]
    waits: Sequence[Wait]


class Completed(Struct, kw_only=True, tag_field="kind", tag="complete", omit_defaults=True):
    """A run has ended well."""

    run_id: str
    fence: int
    result: Raw
    events: Sequence[NewEvent] = ()


class Failed(Struct, kw_only=True, tag_field="kind", tag="fail"):
    """An attempt has ended badly."""

    run_id: str
    fence: int
    error: str
    retryable: bool


class Ended(Struct, kw_only=True, tag_field="kind", tag="ended"):
    """Nothing runs any more of a run whose end was asked for."""

    run_id: str
    fence: int


class Abandoned(Struct, kw_only=True, tag_field="kind", tag="abandoned", omit_defaults=True):
    """A run is given back."""

    run_id: str
    fence: int
    pause_ms: int = 0
    """For how long nobody is to be given it."""


Report = StepDone | Told | Suspended | Completed | Failed | Ended | Abandoned


class Answer(Struct, kw_only=True):
    """What became of a report: `ok`, `stale`, `cancelled` or `error`."""

    status: str
    message: str = ""


class Reported(Struct, kw_only=True):
    """What became of a batch of reports."""

    known: bool
    answers: Sequence[Answer]


class RetryPolicy(Struct, kw_only=True):
    """How failed attempts are taken again."""

    max_retries: int
    initial_ms: int
    multiplier: float
    max_ms: int


class Offer(Struct, kw_only=True, omit_defaults=True):
    """A workflow that this worker runs."""

    workflow_id: str
    queue_name: str | None = None
    concurrency_limit: int | None = None
    input_schema: Mapping[str, object] | None = None
    output_schema: Mapping[str, object] | None = None
    retry_policy: RetryPolicy | None = None
    run_timeout_seconds: int | None = None
    scheduled: bool = False
    trigger_on_event: bool = False


class PutSchedule(Struct, kw_only=True):
    """A schedule that is to be."""

    workflow_id: str
    cron: str
    timezone: str
    key: str
    catch_up: str | None
    overlap: bool | None


class PutTrigger(Struct, kw_only=True):
    """A trigger that is to be."""

    workflow_id: str
    deployment_id: str
    event_topic: str
    batch_size: int
    batch_timeout_seconds: int | None
    queue_name: str | None


class Connect(Struct, kw_only=True):
    """The request that opens a connection."""

    deployment_id: str
    max_concurrent: int
    workflows: Sequence[Offer]
    worker_id: str | None
    holding: Mapping[str, int]


encode = msgspec.json.Encoder().encode
_LINE: msgspec.json.Decoder[Connected | Assignment | Cancel] = msgspec.json.Decoder(Connected | Assignment | Cancel)
_REPORTED = msgspec.json.Decoder(Reported)


def line(text: bytes) -> Connected | Assignment | Cancel:
    """Decode a line. Raises msgspec.MsgspecError."""
    return _LINE.decode(text)


def reported(body: bytes) -> Reported:
    """Decode the answer to a batch. Raises msgspec.MsgspecError."""
    return _REPORTED.decode(body)
