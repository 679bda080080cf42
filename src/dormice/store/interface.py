"""The port of the store: one small interface per aggregate, each method one whole transaction.

Rules: a method carries its scope (organization, machine); a write that moves a state is guarded and losing the race is a
typed answer (`LostRace`), never an exception and never a retry; a method returns only after its commit is durable.
Methods that change an execution append to its log in the same transaction: sequences start at 1 and have no gaps.
Every method may raise StoreUnavailable; a record that contradicts itself (an `exit_code` beside a `signal`, a failure
without an error code) or an id that is there already raises ValueError, an owner that does not exist LookupError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from dormice.domain.egress import PUBLIC, Egress
from dormice.domain.errors import Unavailable
from dormice.domain.execution import Chunk, Execution, LogEntry, Micros, Outcome, StdinMode, Stream
from dormice.domain.machine import DesiredState, Machine, MachineEvent, ResizeState
from dormice.histogram import SECONDS, Histogram
from dormice.store.usage import AutoresizingStore, UsageStore
from dormice.store.webhooks import WebhookStore

if TYPE_CHECKING:
    from dormice.store.previews import PreviewStore
    from dormice.store.snapshots import SnapshotStore
    from dormice.store.ssh import SshSessionStore
    from dormice.store.terminals import TerminalStore
from dormice.store.artifacts import ArtifactStore

RETRY_AFTER_MS = 1_000
"""A disk that is full or a file that is locked stays so for a while."""


class OutputMissing(ValueError):
    """An execution would end before all of its output is in its log. Nothing was changed."""


class StoreUnavailable(Unavailable):
    """The disk is full, or the file is locked, corrupt or unreadable. The transaction left no trace."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after_ms=RETRY_AFTER_MS)


@dataclass(slots=True)
class Commits:
    """Figures of an open store's commits. Failed ones are not in the histograms."""

    seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    operations: Histogram = field(default_factory=lambda: Histogram((1, 2, 4, 8, 16, 32, 64, 128, 256)))
    """How many operations shared a commit."""
    failed: int = 0


@dataclass(frozen=True, slots=True)
class IdempotencyClaim:
    """An Idempotency-Key as the caller sent it, its scope, and the keyed hash (HMAC) of the request."""

    scope: str
    """Organization, method and path."""
    key: str
    request_hash: str
    now: Micros
    keep_until: Micros
    """A stored key older than its own keep_until counts as absent."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """The key was used before with the same request: the resource that it made or touched."""

    resource_id: str


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The key was used before with another request."""

    expected_request_hash: str
    provided_request_hash: str


@dataclass(frozen=True, slots=True)
class LostRace:
    """The guard did not hold; nothing was changed. `current` is the row as it is, None when there is none."""

    current: Execution | Machine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMachine:
    """What `MachineStore.create` needs; it enters phase `accepted`, revision 1, desired `running`."""

    id: str
    organization_id: str
    vcpu: float
    memory_mib: int
    storage_gib: int
    image: str
    autosleep_seconds: int
    now: Micros
    egress: Egress = PUBLIC
    origin: str | None = None
    """The snapshot, or the machine, whose disk is to be copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineChange:
    """What an advance or a patch sets besides the phase; None leaves a field as it is."""

    desired_state: DesiredState | None = None
    reason: str | None = None
    retryable: bool | None = None
    last_error: str | None = None
    """The empty string clears it."""
    boot_id: UUID | None = None
    vcpu: float | None = None
    memory_mib: int | None = None
    storage_gib: int | None = None
    autosleep_seconds: int | None = None
    autoresizing: bool | None = None
    unapplied_from_mib: int | None = None
    """0 when what was to be applied is."""
    enlarging: bool | None = None
    autoresized_at: Micros | None = None
    resize_state: ResizeState | None = None
    last_activity_at: Micros | None = None
    """By the steady clock; not of every activity (see ExecutionStore.last_ends)."""
    egress: Egress | None = None
    copied: bool = False
    """Set: its disk is its own from now on."""


class MachineStore(Protocol):
    """Machines. Every change but one (`note_memory`) adds one to `revision`."""

    async def create(self, new: NewMachine, claim: IdempotencyClaim | None) -> Machine | Replayed | KeyReused:
        """Record a machine."""
        ...

    async def get(self, organization_id: str, machine_id: str) -> Machine | None:
        """Return a machine of the organization, destroyed ones included."""
        ...

    async def page(
        self, organization_id: str, *, before: int | None, limit: int, destroyed: bool = False
    ) -> list[Machine]:
        """Newest first, numbers below `before`; `destroyed` says whether destroyed ones are listed."""
        ...

    async def live(self) -> list[Machine]:
        """Every machine of every organization that is not destroyed: what the engine rebuilds its memory from."""
        ...

    async def advance(
        self,
        machine_id: str,
        revision: int,
        event: MachineEvent | None,
        change: MachineChange,
        now: Micros,
        claim: IdempotencyClaim | None = None,
    ) -> Machine | LostRace | Replayed | KeyReused:
        """Move the phase by `event` (None: phase stays) and apply `change`, if `revision` is still the present one.

        Raises IllegalTransition, having changed nothing.
        """
        ...

    async def note_memory(self, machine_id: str, revision: int, change: MachineChange) -> Machine | LostRace:
        """Apply of `change` what became of a machine's memory (from `autoresizing` to `resize_state`), if `revision` is the present one.

        It stays so: who has read the machine before may still change it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExecution:
    """What `ExecutionStore.create` needs. `env` and `stdin` are secrets: sealed before they reach the file."""

    id: str
    organization_id: str
    machine_id: str
    command: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    stdin_mode: StdinMode
    stdin: bytes
    timeout_ms: int | None
    now: Micros
    start_by: Micros
    awake: bool
    """True: enters `queued`; False: `wake_in_progress`."""
    boot_id: UUID | None
    """Set: claimed in the same transaction (fence 1) for this boot."""
    artifacts: tuple[str, ...] = ()
    """Patterns of files that it leaves behind; if there are any, a collection of them is recorded with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the guest reported of one execution since the last commit, applied in this order: start, output, end."""

    execution_id: str
    boot_id: UUID
    now: Micros
    started_at: Micros | None = None
    chunks: Sequence[Chunk] = ()
    outcome: Outcome | None = None
    scrollback: int | None = None
    """Keep only the last so many bytes of standard output, or somewhat more; None: all that came."""
    requeue: bool = False
    """Same boot, not started, unknown to the guest: drop the claim (boot_id None), so that it is claimed anew. The rest of
    the report is ignored. One whose end was asked for ends `cancelled` in place of that.
    """


class StdinRefusal(StrEnum):
    """Why a segment of standard input was not taken."""

    GAP = "gap"
    CLOSED = "closed"  # eof was committed, or the stdin mode is not OPEN
    ENDED = "ended"  # the execution is terminal
    FULL = "full"  # too much of what was committed has not been given to the command


@dataclass(frozen=True, slots=True)
class StdinSegment:
    """Unsealed standard input at its byte offset. A secret."""

    offset: int
    data: bytes


class ExecutionStore(Protocol):
    """Executions, their logs, their secrets."""

    async def create(self, new: NewExecution, claim: IdempotencyClaim | None) -> Execution | Replayed | KeyReused:
        """Record an execution and its first log entry, and the claim for a boot when one is given."""
        ...

    async def get(self, organization_id: str, machine_id: str, execution_id: str) -> Execution | None:
        """Return an execution of that machine of that organization."""
        ...

    async def page(self, organization_id: str, machine_id: str, *, before: int | None, limit: int) -> list[Execution]:
        """Newest first, numbers below `before`."""
        ...

    async def open(self) -> list[Execution]:
        """Every execution of every machine that has not ended, oldest first."""
        ...

    async def last_ends(self, limit: int) -> dict[str, Micros]:
        """When the last execution of a machine ended, by machine id, for those that had one of the `limit` last to end of all."""
        ...

    async def entries(self, execution: Execution, *, after: int, limit: int, max_bytes: int) -> list[LogEntry]:
        """Log entries with a sequence above `after`, ascending; at most `limit`, and no more once `max_bytes` of
        output have been collected (but at least one).
        """
        ...

    async def output(self, execution: Execution, stream: Stream, *, start: int, end: int) -> bytes:
        """The kept bytes start <= offset < end of a stream (what of them exists)."""
        ...

    async def machine_ready(
        self, machine_id: str, now: Micros, *, boot_id: UUID | None = None, slots: int = 0
    ) -> list[Execution]:
        """Move every `wake_in_progress` execution of the machine to `queued`; return them, oldest first.

        The first `slots` of them are claimed for `boot_id` (fence + 1).
        """
        ...

    async def claim(self, execution_id: str, boot_id: UUID, now: Micros) -> Execution | LostRace:
        """Claim a `queued`, unclaimed execution for a boot: fence + 1. (One whose end was asked for while unclaimed has
        ended.)
        """
        ...

    def progress(self, progress: Progress) -> Awaitable[Execution | LostRace]:
        """Apply what the guest reported. Guards: same boot_id, not terminal.

        Chunks below the kept offset are skipped (resent), a chunk that starts above it raises ValueError, an outcome that
        says more was sent than is kept raises OutputMissing.
        `started_at` on a running execution changes nothing. The outcome of one whose end was asked for becomes `cancelled`,
        with the exit code or signal that it reports. An outcome on a not yet started execution with
        `started_at` None is legal for FAILED, CANCELLED. The env is deleted at the start, stdin at the end.
        """
        ...

    async def end_unstarted(self, execution_id: str, outcome: Outcome) -> Execution | LostRace:
        """End an execution that is unclaimed and not running (expired, cancelled, wake failed)."""
        ...

    async def end_boot(self, machine_id: str, boot_id: UUID | None, outcome: Outcome) -> list[Execution]:
        """End every unfinished execution of a machine that is claimed by `boot_id`; with None all, whoever has claimed them.

        A cancel-requested one ends `cancelled` (error code `cancelled`) in place of the outcome's event.
        """
        ...

    async def request_cancel(self, execution_id: str, now: Micros) -> Execution | None:
        """Record that its end was asked for (the first request counts); an unclaimed one ends `cancelled` at once."""
        ...

    async def environment(self, execution: Execution) -> dict[str, str]:
        """The unsealed extra environment; empty once deleted. A secret."""
        ...

    async def append_stdin(
        self,
        execution_id: str,
        offset: int | None,
        data: bytes,
        *,
        eof: bool,
        now: Micros,
        most_kept: int | None = None,
    ) -> Execution | StdinRefusal | None:
        """Commit a segment of an OPEN standard input. Bytes below the committed offset are skipped; None: behind what is committed.

        With `most_kept`, FULL when more than so many bytes would be kept, unless none are.
        """
        ...

    async def stdin(self, execution: Execution, *, offset: int, max_bytes: int) -> list[StdinSegment]:
        """Committed segments that reach beyond `offset`, ascending, up to max_bytes (at least one)."""
        ...

    async def trim_stdin(self, execution_id: str, offset: int) -> None:
        """Delete segments that lie wholly below `offset`: the guest has written them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An API key's record. The secret itself is stored only as its SHA-256."""

    id: str
    organization_id: str
    organization: str
    name: str
    admin: bool
    prefix: str
    """The first characters of the secret, to tell keys apart."""
    created_at: Micros
    revoked_at: Micros | None = None
    project_id: str | None = None
    """The one project that it may use; None: all that is the organization's."""
    last_four: str = ""
    """The last characters of the secret of a project's key."""
    used_at: Micros | None = None
    """A moment at which a project's key was used, as `use` was last told it."""


class KeyRefusal(Enum):
    """Why a project gets no further key."""

    NAME_TAKEN = auto()
    TOO_MANY = auto()


class KeyStore(Protocol):
    """Organizations and API keys."""

    async def ensure_organization(self, name: str, now: Micros) -> str:
        """Return the id (a UUID string) of the organization, made when missing."""
        ...

    async def create(self, key: Key, secret_hash: bytes) -> Key:
        """Record a key. The same hash again returns the key that has it."""
        ...

    async def find(self, secret_hash: bytes) -> Key | None:
        """Return the key with this SHA-256, revoked ones included."""
        ...

    async def of(self, organization_id: str | None) -> list[Key]:
        """Keys of one organization, or of all; oldest first."""
        ...

    async def create_for_project(self, key: Key, secret_hash: bytes, *, most: int) -> Key | KeyRefusal:
        """Record a key that may use its project only: one of at most `most`, and no other one has its name."""
        ...

    async def get(self, key_id: str) -> Key | None:
        """Return a key by its id."""
        ...

    async def of_project(self, project_id: str) -> list[Key]:
        """Keys of a project that are not revoked, oldest first."""
        ...

    async def revoke(self, organization_id: str | None, key_id: str, now: Micros) -> Key | None:
        """Revoke a key of the organization (None: of any). Repeated: unchanged. A project's key is its project's no more."""
        ...

    async def use(self, uses: Mapping[str, Micros]) -> None:
        """Record when projects' keys were used, by id. The latest counts; ids that are no such key's any more are left out."""
        ...


class Store(Protocol):
    """The whole store: aggregates that share one file and one writer."""

    @property
    def machines(self) -> MachineStore:
        """Machines."""
        ...

    @property
    def executions(self) -> ExecutionStore:
        """Executions, their logs, their secrets."""
        ...

    @property
    def terminals(self) -> TerminalStore:
        """Executions that are terminals."""
        ...

    @property
    def artifacts(self) -> ArtifactStore:
        """What executions leave behind."""
        ...

    @property
    def keys(self) -> KeyStore:
        """Organizations and API keys."""
        ...

    @property
    def snapshots(self) -> SnapshotStore:
        """Snapshots."""
        ...

    @property
    def usage(self) -> UsageStore:
        """What machines have used."""
        ...

    @property
    def autoresizing(self) -> AutoresizingStore:
        """Who may be given more memory."""
        ...

    @property
    def webhooks(self) -> WebhookStore:
        """Webhooks and their deliveries."""
        ...

    @property
    def previews(self) -> PreviewStore:
        """Previews."""
        ...

    @property
    def ssh_sessions(self) -> SshSessionStore:
        """SSH sessions."""
        ...

    async def recall(self, claim: IdempotencyClaim) -> Replayed | KeyReused | None:
        """What the key was used for; None when it is free. Claims nothing."""
        ...

    async def prune_idempotency(self, now: Micros) -> int:
        """Delete claims past their keep_until, a bounded number at a time; return how many."""
        ...

    async def delete_finished(self, before: Micros) -> int:
        """Delete executions that ended before that moment, with all that belongs to them, the longest ago first; then previews and SSH
        sessions that were over before it; then machines that were destroyed before it and have none of these; then runs, events, traces, what sessions remember, and deliveries to
        webhooks of what happened before it.

        A bounded piece at a time, which takes milliseconds; return how many rows it took, 0 when nothing is left to delete. An
        execution goes from every read at once, however long its log. A key that made it goes on saying so for its time.
        """
        ...

    async def check(self) -> None:
        """Raises StoreUnavailable when a commit cannot be made just now."""
        ...

    async def close(self) -> None:
        """Finish what is queued, then close."""
        ...
