"""The machine surface on the wire: one record per noun, and the function that makes it from the domain.

One superset body fits every client version (contract, section 5.3); what is None is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Literal

from msgspec import Meta, Struct

from dormice.domain.artifact import Artifact, Collection, CollectionState
from dormice.domain.egress import Egress
from dormice.domain.execution import ErrorCode, Execution, ExecutionState, LogEntry, Micros, Stream
from dormice.domain.limits import Limits
from dormice.domain.machine import DesiredState, Machine, Phase, ResizeState

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - always UTC, written with Z: quicker than with a zone

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


def time(moment: Micros) -> Time:
    """Return RFC 3339 in UTC with microseconds."""
    second, micros = divmod(moment, 1_000_000)
    return f"{_second(second)}.{micros:06}Z"


@lru_cache(maxsize=4096)
def _second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).isoformat()


class LifecycleStatus(Struct, omit_defaults=True, kw_only=True):
    """Where a machine is on the way to its desired state."""

    phase: Phase
    reason: str
    retryable: bool
    revision: str
    last_transition_at: Time
    last_progress_at: Time
    memory_configured_mib: int
    memory_assigned_mib: int | None = None
    memory_target_mib: int | None = None
    memory_last_autoresized_at: Time | None = None
    memory_resize_state: ResizeState | None = None
    last_error: str | None = None


class EgressList(Struct):
    """The names and networks that a machine may reach."""

    allow: Sequence[str]


class MachineRecord(Struct, omit_defaults=True, kw_only=True):
    """A machine."""

    machine_id: str
    vcpu: float
    memory_mib: int
    storage_gib: int
    desired_state: DesiredState
    autosleep_seconds: int
    created_at: Time
    phase: Phase
    status: LifecycleStatus
    image: str
    egress: Literal["public", "none"] | EgressList
    origin: str | None = None
    copied: bool | None = None


class MachinePage(Struct, omit_defaults=True, kw_only=True):
    """Machines, newest first."""

    items: list[MachineRecord]
    next_cursor: str | None = None


def machine(m: Machine) -> MachineRecord:
    """Return a machine's record."""
    return MachineRecord(
        machine_id=m.id,
        vcpu=m.vcpu,
        memory_mib=m.memory_mib,
        storage_gib=m.storage_gib,
        desired_state=m.desired_state,
        autosleep_seconds=m.autosleep_seconds,
        created_at=time(m.created_at),
        phase=m.phase,
        image=m.image,
        egress=_egress(m.egress),
        origin=m.origin,
        copied=None if m.origin is None else m.copied,
        status=LifecycleStatus(
            phase=m.phase,
            reason=m.reason,
            retryable=m.retryable,
            revision=str(m.revision),
            last_transition_at=time(m.last_transition_at),
            last_progress_at=time(m.last_progress_at),
            memory_configured_mib=m.memory_mib,
            memory_assigned_mib=m.assigned_mib,
            memory_target_mib=None if m.assigned_mib is None else m.memory_mib,
            memory_last_autoresized_at=None if m.autoresized_at is None else time(m.autoresized_at),
            memory_resize_state=m.resize_state,
            last_error=m.last_error or None,
        ),
    )


def _egress(egress: Egress) -> Literal["public", "none"] | EgressList:
    if egress.allow is None:
        return "public"
    return EgressList(egress.allow) if egress.allow else "none"


class LogCapture(Struct, omit_defaults=True, kw_only=True):
    """What is amiss with the publication of an execution's log; empty: nothing."""


class ArtifactName(Struct, kw_only=True):
    """A file that an execution left behind."""

    artifact_id: str
    name: str


class ExecutionRecord(Struct, omit_defaults=True, kw_only=True):
    """A command on a machine: asked for, running or ended."""

    execution_id: str
    machine_id: str
    status: ExecutionState
    command: Sequence[str]
    created_at: Time
    cwd: str
    env_keys: Sequence[str]
    stdout_bytes: int
    stderr_bytes: int
    stdout_truncated: bool
    stderr_truncated: bool
    artifacts: Sequence[ArtifactName]
    log_capture: LogCapture
    started_at: Time | None = None
    completed_at: Time | None = None
    expires_at: Time | None = None
    exit_code: int | None = None
    signal: int | None = None
    error_code: ErrorCode | None = None
    error_message: str | None = None
    retry_after_ms: int | None = None
    artifacts_status: CollectionState | None = None
    """How far they are collected; absent if none were asked for."""
    artifacts_message: str | None = None
    """What was left out of them, or why there are none."""


class ExecutionPage(Struct, omit_defaults=True, kw_only=True):
    """Executions of a machine, newest first."""

    items: list[ExecutionRecord]
    next_cursor: str | None = None


_NO_CAPTURE = LogCapture()


def execution(
    e: Execution, limits: Limits, collected: tuple[Collection, Sequence[Artifact]] | None = None
) -> ExecutionRecord:
    """Return an execution's record. `expires_at` stands while it may still expire, `retry_after_ms` during the wake."""
    waits = e.state is ExecutionState.WAKE_IN_PROGRESS
    return ExecutionRecord(
        execution_id=e.id,
        machine_id=e.machine_id,
        status=e.state,
        command=e.command,
        created_at=time(e.created_at),
        cwd=e.cwd,
        env_keys=e.env_keys,
        stdout_bytes=e.stdout_bytes,
        stderr_bytes=e.stderr_bytes,
        stdout_truncated=truncated(e, Stream.STDOUT, limits),
        stderr_truncated=truncated(e, Stream.STDERR, limits),
        artifacts=[ArtifactName(artifact_id=one.id, name=artifact_name(one)) for one in collected[1]]
        if collected
        else (),
        artifacts_status=collected[0].state if collected else None,
        artifacts_message=(collected[0].message or None) if collected else None,
        log_capture=_NO_CAPTURE,
        started_at=None if e.started_at is None else time(e.started_at),
        completed_at=None if e.completed_at is None else time(e.completed_at),
        expires_at=time(e.start_by) if waits or e.state is ExecutionState.QUEUED else None,
        exit_code=e.exit_code,
        signal=e.signal,
        error_code=e.error_code,
        error_message=e.error_message,
        retry_after_ms=limits.retry_after_ms if waits else None,
    )


def artifact_name(artifact: Artifact) -> str:
    """Return an artifact's name as text; bytes that are no UTF-8 become U+FFFD."""
    return artifact.name.decode("utf-8", "replace")


def written(e: Execution, stream: Stream) -> int:
    """Return how many bytes the command has written to a stream."""
    return e.stdout_bytes if stream is Stream.STDOUT else e.stderr_bytes


def kept(e: Execution, stream: Stream) -> int:
    """Return how many bytes of a stream are in the log."""
    return e.stdout_kept if stream is Stream.STDOUT else e.stderr_kept


def truncated(e: Execution, stream: Stream, limits: Limits) -> bool:
    """Whether a stream was cut. While it is alive, bytes that are only under way do not count as cut."""
    return written(e, stream) > kept(e, stream) and (e.terminal or kept(e, stream) >= limits.kept_output_bytes)


class EventRecord(Struct, omit_defaults=True, kw_only=True):
    """One entry of an execution's log: a change of its status, or a piece of output."""

    sequence: int
    type: str
    at: Time
    status: ExecutionState | None = None
    exit_code: int | None = None
    signal: int | None = None
    error_code: ErrorCode | None = None
    error_message: str | None = None
    chunk: str | None = None
    chunk_base64: str | None = None
    offset: int | None = None


class EventPage(Struct, omit_defaults=True, kw_only=True):
    """A part of an execution's log, ascending."""

    items: list[EventRecord]
    next_cursor: str | None = None


LIFECYCLE = "lifecycle"
STREAM_NAMES: Mapping[Stream, str] = {Stream.STDOUT: "stdout", Stream.STDERR: "stderr"}


def lifecycle_event(entry: LogEntry) -> EventRecord:
    """Return the record of a change of status."""
    return EventRecord(
        sequence=entry.sequence,
        type=LIFECYCLE,
        at=time(entry.at),
        status=entry.state,
        exit_code=entry.exit_code,
        signal=entry.signal,
        error_code=entry.error_code,
        error_message=entry.error_message,
    )


class OutputRecord(Struct, omit_defaults=True, kw_only=True):
    """What a command has written, as far as it is kept: text, or with `encoding=base64` the exact bytes."""

    execution_id: str
    stdout_bytes: int
    stderr_bytes: int
    stdout_truncated: bool
    stderr_truncated: bool
    stdout: str | None = None
    stderr: str | None = None
    stdout_base64: str | None = None
    stderr_base64: str | None = None


class StdinRecord(Struct, kw_only=True):
    """How much of an execution's standard input is committed."""

    execution_id: str
    offset: int
    eof: bool
