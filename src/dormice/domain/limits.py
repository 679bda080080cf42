"""Every limit and default number, in one place; `GET /v1/limits` shows them all.

Refused, never silently reduced: what is above a limit is an error that names it.
"""

from __future__ import annotations

from dataclasses import dataclass

SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds and defaults. Sizes in bytes, times in the unit of the name."""

    requests_per_second: int = 5_000
    """Per key, on average; 0 sets no limit."""
    requests_burst: int = 10_000
    """Per key, at once after a pause."""
    requests_at_once: int = 10_000
    """Requests, long polls and streams included, that are served at once; at most half of the connections that there may be. An organization
    has no more than it leaves free for the others: half, as long as it is the only one."""
    requests_at_once_without_key: int = 500
    """Those among them that need no key: pages of approvals, and what is sent there."""
    request_body_bytes: int = 1 << 20
    websocket_message_bytes: int = 1 << 20
    """One message of a client."""
    workflow_body_bytes: int = 100 << 20
    """A request of the workflow surface: payloads and results are in it."""
    schema_check_ms: int = 100
    """Processor time that comparing a document with a workflow's schema may take, for each MiB begun of both."""
    step_key_chars: int = 4_096
    topic_chars: int = 1_024
    batch_runs: int = 10_000
    events_per_request: int = 10_000
    schedule_key_chars: int = 255
    trigger_batch_events: int = 10_000
    reports_per_request: int = 10_000
    """What a worker that fetches its work may report at once."""
    workflows_per_worker: int = 10_000
    worker_lost_ms: int = 10_000
    """A worker that fetches its work, and is not heard of for so long, is lost, and its runs are given to others. It lets go of them before
    that by itself."""
    spans_per_request: int = 10_000
    session_id_chars: int = 512
    """Of a session or a conversation."""
    keys_per_project: int = 10
    argv_count: int = 4_096
    argv_bytes: int = 131_071
    """One argument: the kernel's MAX_ARG_STRLEN (128 KiB) less the final NUL."""
    argv_total_bytes: int = 1 << 20
    env_count: int = 1_024
    env_name_bytes: int = 256
    env_value_bytes: int = 131_071
    env_total_bytes: int = 1 << 20
    cwd_bytes: int = 4_095
    """The kernel's PATH_MAX less the final NUL."""
    path_bytes: int = 4_095
    """Of a path in a machine: the kernel's PATH_MAX less the final NUL."""
    file_stall_ms: int = 300_000
    """How long reading or writing a file, or an archive, may move no byte in the machine before it is given up. At its end all that the
    machine holds in memory must get to its disk in that time."""
    artifact_patterns: int = 64
    """Of one execution."""
    artifacts_per_execution: int = 1_000
    artifact_bytes: int = 4 << 30
    """One artifact; a larger file is left out, and that is told."""
    artifacts_total_bytes: int = 16 << 30
    """All artifacts of one execution."""
    artifacts_bytes_per_organization: int = 64 << 30
    """All artifacts that an organization keeps; what would be beyond is left out, and that is told."""
    keep_artifacts_hours: int = 720
    """How long an artifact is kept; 0 is for ever."""
    artifact_url_seconds: int = 900
    """How long the download URL of an artifact is good."""
    stdin_segment_bytes: int = 1 << 20
    terminal_unread_bytes: int = 1 << 20
    """What was typed into a terminal and is kept until its shell has been given it. Who types more waits, and is then refused."""
    terminal_unread_ms: int = 10_000
    """How long he waits."""
    terminal_scrollback_bytes: int = 1 << 20
    """What is kept of what a terminal has shown: the end of it."""
    timeout_ms: int = 30 * 24 * 3600 * 1000
    start_timeout_ms: int = 24 * 3600 * 1000
    start_timeout_default_ms: int = 15 * 60 * 1000
    wait_ms: int = 55_000
    """Below the 60 s read timeout of the clients."""
    running_per_machine: int = 64
    queued_per_machine: int = 10_000
    channels_per_machine: int = 256
    """What is open into a machine at once besides executions: SSH, file work, connections to its ports."""
    channel_wake_ms: int = 60_000
    """How long whoever opens one waits for the machine to wake."""
    previews_per_machine: int = 100
    """Open ones; those that have ended do not count."""
    preview_hours: int = 24 * 365
    """How long a preview may be open at most."""
    preview_default_hours: int = 7 * 24
    preview_link_hours: int = 7 * 24
    """How long a signed link to a preview, and the browser that came by it, may be let in at most."""
    preview_connections: int = 128
    """Connections into the machine that one preview has open at once; further requests wait for one."""
    preview_requests: int = 512
    """Requests of one preview that are served or wait at once."""
    preview_requests_per_organization: int = 2_000
    """The same, of all previews of an organization together."""
    preview_answer_ms: int = 300_000
    """How long a program behind a preview may take to begin its answer."""
    public_key_bytes: int = 8_192
    """Of an SSH session's key, as OpenSSH writes it on one line."""
    rsa_bits_min: int = 2_048
    ssh_session_seconds: int = 3_600
    """How long one may log in with an SSH session. Who is logged in may stay."""
    ssh_sessions_per_machine: int = 1_000
    """Open at once."""
    ssh_connections: int = 1_000
    """Of all machines at once; one more is hung up on."""
    ssh_connections_per_machine: int = 100
    ssh_logins: int = 50
    """Connections that have not logged in yet, at once."""
    ssh_login_ms: int = 20_000
    """How long they may take for it."""
    ssh_failed_logins_per_minute: int = 60
    """Of one address (IPv6: one /64); more are hung up on at once."""
    kept_output_bytes: int = 16 << 20
    """Per stream: the head is kept, the rest is counted."""
    cancel_grace_ms: int = 5_000
    drain_grace_ms: int = 200
    sleep_grace_ms: int = 5_000
    machine_lost_ms: int = 60_000
    """How long a machine may be without its node, or with an execution whose timeout or cancel is over, before its executions are given up."""
    idempotency_key_bytes: int = 255
    idempotency_hours: int = 24
    idempotency_in_flight_ms: int = 1_000
    keep_finished_hours: int = 720
    """How long a finished execution with its output, and a destroyed machine, can be read; 0 is for ever. Never shorter than
    `idempotency_hours`: a key that still counts finds what it made."""
    keep_usage_days: int = 400
    """How long what machines have used can be asked for; 0 is for ever."""
    usage_rows: int = 50_000
    """In one answer: more are refused."""
    log_token_seconds: int = 900
    """How long a token that reads one execution's log is good."""
    retry_after_ms: int = 250
    """The hint in `wake_in_progress` and for requests that may be sent again."""
    page_default: int = 50
    page_max: int = 1_000
    events_page_bytes: int = 4 << 20
    vcpu_min: float = 0.25
    vcpu_step: float = 0.25
    memory_mib_min: int = 64
    autoresizing_step_mib: int = 1_024
    """What a machine that is short of memory is given at once, at most: half of what it has, in steps of 64 MiB."""
    autoresizing_memory_mib: int = 16_384
    """Up to where memory is raised by itself; never above the host's."""
    storage_gib_min: int = 1
    storage_gib_max: int = 1_024
    autosleep_seconds_max: int = 9_223_372_036
    """The contract's bound: int64 nanoseconds."""
    machines_per_organization: int = 1_000
    webhooks_per_organization: int = 20
    webhook_attempt_ms: int = 10_000
    """How long one delivery to a webhook may take, from the look-up of the name to the end of the answer."""
    webhook_answer_bytes: int = 65_536
    """How much of a webhook's answer is read, its head included; nothing of it is kept but the status."""
    webhook_payload_bytes: int = 65_536
    """An event with a longer record is sent without the record's `command`."""
    webhook_first_retry_ms: int = 5_000
    """The pause after the first failure; it grows fourfold with each, up to an hour."""
    webhook_retry_hours: int = 24
    """How long an event is sent again and again before it is given up."""
    webhook_disable_hours: int = 72
    """A webhook to which nothing could be delivered for so long is disabled."""
    webhook_secret_overlap_hours: int = 24
    """How long deliveries are signed with the secret before the present one, too."""
    snapshots_per_machine: int = 100
    snapshots_per_organization: int = 1_000
    egress_entries: int = 256
    """Names and networks in one machine's allow-list."""
    key_min_chars: int = 32
    key_max_chars: int = 512
    name_chars: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineDefaults:
    """What a machine gets when the create body does not say."""

    vcpu: float = 1.0
    memory_mib: int = 1_024
    storage_gib: int = 10
    image: str = "default"
    autosleep_seconds: int = 300
    cwd: str = "/root"
