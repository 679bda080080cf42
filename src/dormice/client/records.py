"""What the server answers, as typed records.

Fields that this version does not know are passed over, so an old client understands a newer server. Times are in UTC.
"""

from __future__ import annotations

from base64 import b64decode
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from dormice.client.errors import APIResponseError
from dormice.client.statuses import FINISHED

_Record = TypeVar("_Record")


class MachineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a machine is on its way to its desired state."""

    phase: str
    """accepted, placement_pending, starting, running, stopping, sleeping, destroying, destroyed or failed."""
    reason: str
    retryable: bool
    revision: str
    """Changes with every change of the machine."""
    last_transition_at: datetime
    last_progress_at: datetime
    memory_configured_mib: int | None = None
    """What it is to have."""
    memory_assigned_mib: int | None = None
    """What it has just now; None while it sleeps."""
    memory_target_mib: int | None = None
    memory_last_autoresized_at: datetime | None = None
    """When it was last given more because it was short."""
    memory_resize_state: str | None = None
    """stable, error or pending_capacity: it is short, and the host has none to give."""
    last_error: str | None = None


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine and what it is made of."""

    machine_id: str
    vcpu: float
    memory_mib: int
    storage_gib: int
    desired_state: str
    """running, sleeping or destroyed."""
    autosleep_seconds: int
    """Seconds without work after which it goes to sleep; 0 means never."""
    phase: str
    status: MachineStatus
    created_at: datetime
    image: str = "default"
    egress: str | dict[str, list[str]] = "public"
    """What it may reach: `public`, `none`, or `{"allow": [names and networks]}`."""
    origin: str | None = None
    """The snapshot or machine that its disk is a copy of."""
    copied: bool | None = None
    """Whether that copy is made; None without an origin."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of a machine's disk, which nothing changes."""

    snapshot_id: str
    machine_id: str
    name: str
    status: str
    """creating, ready, failed, deleting or deleted."""
    storage_gib: int
    """The size of the disk: what is made from it has at least that."""
    image: str
    created_at: datetime
    storage_bytes: int = 0
    """What it takes up on the host."""
    error: str | None = None


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a machine that is served under an address."""

    preview_id: str
    machine_id: str
    status: str
    """wake_in_progress, ready, closed, expired or failed."""
    port: int
    visibility: str
    """private, org or public."""
    created_at: datetime
    protocol: str | None = None
    url: str | None = None
    """Where it is served; a `private` or `org` one opens by a link (`previews.link`) or with a key."""
    ready_at: datetime | None = None
    expires_at: datetime | None = None
    retry_after_ms: int | None = None
    error_code: str | None = None
    error_message: str | None = None


class PreviewLink(msgspec.Struct, frozen=True, kw_only=True):
    """A signed link to a preview: a secret until it expires."""

    url: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"PreviewLink(expires_at={self.expires_at!r})"


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file that an execution left behind."""

    artifact_id: str
    name: str


class StoredArtifact(Artifact, frozen=True, kw_only=True):
    """All that is known of such a file."""

    machine_id: str
    size_bytes: int
    created_at: datetime
    execution_id: str | None = None
    mime_type: str | None = None
    sha256: str | None = None
    download_url: str | None = None
    """Good for some minutes, without a key."""
    expires_at: datetime | None = None
    """When it is deleted."""

    def __repr__(self) -> str:
        """Without the URL, which is as good as a key."""
        return f"StoredArtifact({self.artifact_id!r}, {self.name!r}, {self.size_bytes} bytes)"


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """A command on a machine: asked for, running or ended."""

    execution_id: str
    machine_id: str
    status: str
    """wake_in_progress, queued, running, succeeded, failed, cancelled or expired."""
    command: list[str] | None
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    cwd: str | None = None
    env_keys: list[str] | None = None
    exit_code: int | None = None
    signal: int | None = None
    retry_after_ms: int | None = None
    """With wake_in_progress only: when to look again."""
    stdout_bytes: int | None = None
    """Bytes that the process wrote, kept or not."""
    stderr_bytes: int | None = None
    stdout_truncated: bool | None = None
    stderr_truncated: bool | None = None
    error_code: str | None = None
    error_message: str | None = None
    artifacts: list[Artifact] | None = None
    artifacts_status: str | None = None
    """pending, collected or failed; None if none were asked for."""
    artifacts_message: str | None = None
    """What was left out of them, or why there are none."""

    @property
    def finished(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in FINISHED


class Terminal(msgspec.Struct, frozen=True, kw_only=True):
    """A shell on a pseudo terminal of a machine."""

    terminal_id: str
    machine_id: str
    status: str
    """wake_in_progress, ready, closed, expired or failed."""
    width: int
    height: int
    created_at: datetime
    ready_at: datetime | None = None
    closed_at: datetime | None = None
    stream_url: str | None = None
    """The address of its WebSocket, with a token that is good for 15 minutes: a secret."""
    exit_code: int | None = None
    signal: int | None = None
    retry_after_ms: int | None = None
    """With wake_in_progress only: when to look again."""
    error_code: str | None = None
    error_message: str | None = None


class CompletedExecution(Execution, frozen=True, kw_only=True):
    """What `machines.run` returns: the record of an execution that has ended, and what it wrote.

    Both streams are cut at the server's kept limit, which `stdout_truncated` and `stderr_truncated` tell.
    """

    stdout: bytes = b""
    stderr: bytes = b""


class ExecutionEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of an execution's log."""

    sequence: int
    """1 for the first entry, without gaps."""
    type: str
    """lifecycle, stdout or stderr."""
    at: datetime
    chunk: str | None = None
    """Output as text; bytes that are not UTF-8 are replaced. None if the exact bytes were asked for."""
    chunk_base64: str | None = None
    offset: int | None = None
    """Where the chunk begins in its stream, in bytes; with `chunk_base64` only."""
    status: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    error_code: str | None = None
    error_message: str | None = None

    @property
    def data(self) -> bytes:
        """The output of this entry: the exact bytes if they were asked for, else the text in UTF-8."""
        if self.chunk_base64 is not None:
            return b64decode(self.chunk_base64)
        return (self.chunk or "").encode()

    @property
    def last(self) -> bool:
        """Whether nothing comes after this entry."""
        return self.type == "lifecycle" and self.status in FINISHED


class ExecutionOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What an execution has written so far, as text; `executions.read_output` gives the exact bytes."""

    execution_id: str
    stdout: str | None = None
    stderr: str | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    stdout_truncated: bool | None = None
    stderr_truncated: bool | None = None


class StdinPosition(msgspec.Struct, frozen=True, kw_only=True):
    """How far the standard input of an execution is committed."""

    execution_id: str
    offset: int
    eof: bool


class AutoresizingSetting(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a machine may be given more memory when it is short."""

    enabled: bool


class LogPublication(msgspec.Struct, frozen=True, kw_only=True):
    """How far the publication of a log is."""

    state: str
    """active or closed."""
    complete: bool
    """Nothing more will come."""
    queued_messages: int


class LogStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where the log of an execution can be read, and whether it is complete."""

    execution_id: str
    stream_id: str
    publication: LogPublication


class LogToken(msgspec.Struct, frozen=True, kw_only=True):
    """What reads one log for a short time: `GET {base_url}/{stream_id}` with `Authorization: {token_type} {access_token}`."""

    access_token: str
    """A secret."""
    token_type: str
    base_url: str
    stream_id: str
    execution_id: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"LogToken(execution_id={self.execution_id!r}, expires_at={self.expires_at!r})"


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A file, a directory, or something else that has a name in a machine."""

    name: str
    """The last part of its path; bytes that are no UTF-8 are U+FFFD."""
    type: str
    """file, directory, symlink or other."""
    size: int
    mode: str
    """Octal permissions, such as 0644."""
    uid: int
    gid: int
    modified_at: datetime
    name_base64: str | None = None
    """The exact bytes of a name that is no UTF-8."""
    target: str | None = None
    """What a symbolic link says."""
    target_base64: str | None = None

    @property
    def exact_name(self) -> str:
        """The name with bytes that are no UTF-8 as surrogates, as Python's own functions have it: good to build paths of."""
        return self.name if self.name_base64 is None else b64decode(self.name_base64).decode("utf-8", "surrogateescape")


class FilePart(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a file."""

    content: bytes
    size: int
    """Bytes of the whole file."""


class SSHHostTrust(msgspec.Struct, frozen=True, kw_only=True):
    """How to know the SSH server: `@cert-authority HOST_PATTERN PUBLIC_KEY` in a known_hosts file."""

    kind: str
    """cert_authority."""
    host_pattern: str
    public_key: str


class SSHConnection(msgspec.Struct, frozen=True, kw_only=True):
    """How to log in to a machine."""

    endpoint: str
    port: int
    ssh_username: str
    user_certificate: str | None = None
    host_trust: SSHHostTrust | None = None


class SSHSession(msgspec.Struct, frozen=True, kw_only=True):
    """The right to log in to a machine by SSH, with one key and for a time."""

    session_id: str
    machine_id: str
    status: str
    """wake_in_progress, ready, closed, expired or failed."""
    created_at: datetime
    connection: SSHConnection | None = None
    """While it is ready."""
    ready_at: datetime | None = None
    expires_at: datetime | None = None
    retry_after_ms: int | None = None
    error_code: str | None = None
    error_message: str | None = None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An API key, without its secret."""

    key_id: str
    organization_id: str
    organization: str
    admin: bool
    created_at: datetime
    prefix: str
    name: str | None = None
    revoked_at: datetime | None = None


class NewKey(Key, frozen=True, kw_only=True):
    """An API key that was just made. This is the only time that `key`, its secret, is shown."""

    key: str

    def __repr__(self) -> str:
        return f"NewKey(key_id={self.key_id!r}, organization={self.organization!r}, prefix={self.prefix!r})"


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A URL that is told of events, without its secret."""

    webhook_id: str
    url: str
    events: list[str]
    enabled: bool
    created_at: datetime
    failing_since: datetime | None = None
    """Every attempt since then has failed."""
    disabled_reason: str | None = None
    """Why the server has disabled it."""


class NewWebhook(Webhook, frozen=True, kw_only=True):
    """A webhook with a secret that was just made. This is the only time that `secret` is shown."""

    secret: str

    def __repr__(self) -> str:
        return f"NewWebhook(webhook_id={self.webhook_id!r}, url={self.url!r})"


class WebhookDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way to a webhook."""

    webhook_id: str
    event_id: str
    """The header `webhook-id`: the same at every attempt."""
    type: str
    status: str
    """pending, delivered or failed."""
    created_at: datetime
    attempts: int
    machine_id: str | None = None
    execution_id: str | None = None
    last_attempt_at: datetime | None = None
    last_status_code: int | None = None
    last_error: str | None = None
    next_attempt_at: datetime | None = None
    completed_at: datetime | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Every limit and default of the server, by name."""

    limits: dict[str, Any]
    defaults: dict[str, Any] = {}
    machine: dict[str, Any] = {}


class PageBody(msgspec.Struct, Generic[_Record], frozen=True):
    """One page of a list, as the server sends it."""

    items: list[_Record]
    next_cursor: str | None = None


def decode(content: bytes, record: type[_Record]) -> _Record:
    """Raises APIResponseError if the content is not JSON or is not such a record."""
    try:
        return msgspec.json.decode(content, type=record)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise APIResponseError(f"the server's answer is no {getattr(record, '__name__', record)}: {error}") from error
