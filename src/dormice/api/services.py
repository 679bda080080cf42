"""What the API asks of the engine. The engine's classes fit these protocols; tests bring their own.

Every method raises the errors of `dormice.domain.errors` and no others; ids are taken as the client wrote them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dormice.api.file_services import Artifacts, Files
from dormice.domain.execution import Execution, LogEntry, Micros, Stream
from dormice.domain.limits import Limits, MachineDefaults
from dormice.domain.machine import Machine
from dormice.domain.snapshot import Snapshot
from dormice.domain.terminal import Terminal
from dormice.domain.webhook import Delivery, Webhook
from dormice.engine.keys import Keys as ProjectKeys
from dormice.engine.log_tokens import LogGrant
from dormice.engine.orders import Caller, ExecutionOrder, Idempotency, MachineOrder, MachinePatch, TerminalOrder
from dormice.engine.previews import Previews
from dormice.engine.runs.approvals import Approvals
from dormice.engine.runs.attempts import Attempts
from dormice.engine.runs.batches import Batches
from dormice.engine.runs.events import Events
from dormice.engine.runs.lists import Lists
from dormice.engine.runs.pull import Pull
from dormice.engine.runs.registry import Registry
from dormice.engine.runs.reruns import Reruns
from dormice.engine.runs.runs import Runs
from dormice.engine.runs.schedules import Schedules
from dormice.engine.runs.sessions import Sessions
from dormice.engine.runs.traces import Traces
from dormice.engine.runs.triggers import Triggers
from dormice.engine.runs.workers import Workers
from dormice.engine.tokens import Tokens
from dormice.engine.usage import Period, StorageUse, Totals
from dormice.engine.webhooks.webhooks import WebhookOrder
from dormice.store.interface import Key
from dormice.store.usage import ComputeUse
from dormice.store.webhooks import WebhookChange

if TYPE_CHECKING:
    from dormice.api.http.trace_context import TraceContext
    from dormice.api.previews.addresses import PreviewAddresses


class Executions(Protocol):
    """Executions of one machine."""

    @property
    def closing(self) -> bool:
        """The server stops: whoever follows is to be let go."""
        ...

    async def create(
        self,
        caller: Caller,
        machine_id: str,
        order: ExecutionOrder,
        idempotency: Idempotency | None,
        *,
        wait_ms: int = 0,
    ) -> Execution:
        """Record an execution and see it started; with wait_ms, return once it has ended or that time is over."""
        ...

    async def get(self, caller: Caller, machine_id: str, execution_id: str, *, wait_ms: int = 0) -> Execution:
        """Return an execution; wait_ms as in `create`."""
        ...

    async def page(self, caller: Caller, machine_id: str, *, before: int | None, limit: int) -> list[Execution]:
        """Newest first, numbers below `before`."""
        ...

    async def cancel(self, caller: Caller, machine_id: str, execution_id: str) -> Execution:
        """Ask for its end; a finished one is returned unchanged."""
        ...

    async def entries(
        self,
        caller: Caller,
        machine_id: str,
        execution_id: str,
        *,
        after: int,
        limit: int,
        max_bytes: int,
        wait_ms: int = 0,
    ) -> tuple[Execution, list[LogEntry]]:
        """Return the execution and its log above sequence `after`; with wait_ms, wait for the first such entry."""
        ...

    async def output(self, execution: Execution, stream: Stream, *, start: int, end: int) -> bytes:
        """Return the kept bytes start <= offset < end."""
        ...

    async def write_stdin(
        self, caller: Caller, machine_id: str, execution_id: str, *, offset: int, data: bytes, eof: bool
    ) -> Execution:
        """Commit bytes of an open standard input at their offset."""
        ...


class Terminals(Protocol):
    """Terminals of one machine."""

    @property
    def closing(self) -> bool:
        """The server stops: whoever follows is to be let go."""
        ...

    async def create(
        self,
        caller: Caller,
        machine_id: str,
        order: TerminalOrder,
        idempotency: Idempotency | None,
        *,
        wait_ms: int = 0,
    ) -> Terminal:
        """Record a terminal and see its shell started; with wait_ms, return once it is ready or that time is over."""
        ...

    async def get(self, caller: Caller, machine_id: str, terminal_id: str, *, wait_ms: int = 0) -> Terminal:
        """Return a terminal; wait_ms as in `create`."""
        ...

    async def find(self, machine_id: str, terminal_id: str) -> Terminal:
        """Return a terminal to somebody who has shown that he may use it."""
        ...

    async def page(self, caller: Caller, machine_id: str, *, before: int | None, limit: int) -> list[Terminal]:
        """Newest first, numbers below `before`."""
        ...

    async def close(self, terminal: Terminal) -> Terminal:
        """Hang up."""
        ...

    async def type(self, terminal: Terminal, data: bytes) -> None:
        """Have bytes typed."""
        ...

    async def resize(self, terminal: Terminal, width: int, height: int) -> None:
        """Give it another size."""
        ...

    async def shown(self, terminal: Terminal) -> tuple[int, bytes]:
        """Return what is kept of what it has shown, and at which offset that begins."""
        ...

    def follow(self, terminal: Terminal, *, after: int | None = None) -> AsyncIterator[tuple[int, bytes]]:
        """Yield what it shows with its offset until it ends; an empty piece when nothing happens."""
        ...


class Machines(Protocol):
    """Machines of the caller's organization."""

    async def create(
        self, caller: Caller, order: MachineOrder, idempotency: Idempotency | None, *, wait_ms: int = 0
    ) -> Machine:
        """Record a machine; with wait_ms, return once it runs, has failed, or that time is over."""
        ...

    async def fork(
        self, caller: Caller, machine_id: str, order: MachineOrder, idempotency: Idempotency | None, *, wait_ms: int = 0
    ) -> Machine:
        """Record a machine with a copy of another one's disk; returns once that is copied, or after some time."""
        ...

    async def get(self, caller: Caller, machine_id: str, *, wait_ms: int = 0) -> Machine:
        """Return a machine; wait_ms as in `create`, for its desired state."""
        ...

    async def page(self, caller: Caller, *, before: int | None, limit: int) -> list[Machine]:
        """Newest first, numbers below `before`."""
        ...

    async def patch(
        self,
        caller: Caller,
        machine_id: str,
        patch: MachinePatch,
        *,
        revision: str | None,
        idempotency: Idempotency | None,
    ) -> Machine:
        """Change what a machine is made of. `revision` None: whatever the present one is."""
        ...

    async def destroy(
        self,
        caller: Caller,
        machine_id: str,
        *,
        revision: str | None,
        idempotency: Idempotency | None,
        wait_ms: int = 0,
    ) -> Machine:
        """Destroy a machine and its disk."""
        ...

    async def sleep(
        self,
        caller: Caller,
        machine_id: str,
        *,
        revision: str | None,
        idempotency: Idempotency | None,
        wait_ms: int = 0,
    ) -> Machine:
        """Stop a machine's processes and keep its disk."""
        ...

    async def wake(
        self,
        caller: Caller,
        machine_id: str,
        *,
        revision: str | None,
        idempotency: Idempotency | None,
        wait_ms: int = 0,
    ) -> Machine:
        """Start a machine from its disk."""
        ...

    async def reboot(
        self,
        caller: Caller,
        machine_id: str,
        *,
        force: bool,
        revision: str | None,
        idempotency: Idempotency | None,
        wait_ms: int = 0,
    ) -> Machine:
        """Stop a machine's processes and start it again from its disk."""
        ...

    async def set_autoresizing(
        self, caller: Caller, machine_id: str, *, enabled: bool, idempotency: Idempotency | None
    ) -> Machine:
        """Say whether a machine's memory may be raised when it is short."""
        ...

    def changes(self, caller: Caller, machine_id: str) -> AsyncIterator[Machine | None]:
        """Yield the present state, then each change; None where nothing changed for 15 s. Ends at rest."""
        ...


class Snapshots(Protocol):
    """Snapshots of the caller's organization."""

    async def create(
        self, caller: Caller, machine: Machine, name: str, idempotency: Idempotency | None, *, wait_ms: int = 0
    ) -> Snapshot:
        """Copy a machine's disk; returns once that is done, or after some time."""
        ...

    async def get(self, caller: Caller, snapshot_id: str, *, wait_ms: int = 0) -> Snapshot:
        """Return a snapshot; wait_ms as for machines."""
        ...

    async def page(self, caller: Caller, machine_id: str | None, *, before: int | None, limit: int) -> list[Snapshot]:
        """Newest first, numbers below `before`; of one machine, or all."""
        ...

    async def delete(self, caller: Caller, snapshot_id: str, *, wait_ms: int = 0) -> Snapshot:
        """Delete a snapshot."""
        ...


class Autoresizing(Protocol):
    """What organizations allow."""

    async def policy(self, caller: Caller) -> bool:
        """Whether machines of the caller's organization may be given more memory."""
        ...

    async def set_policy(self, caller: Caller, *, enabled: bool) -> bool:
        """Allow it or not, and return that."""
        ...


class LogTokens(Protocol):
    """Tokens that read one execution's log."""

    def mint(self, caller: Caller, execution: Execution) -> tuple[str, Micros]:
        """Return a token and when it expires."""
        ...

    async def grant(self, token: str, stream_id: str) -> LogGrant:
        """Return what it is good for. Raises Unauthenticated, Forbidden."""
        ...


class Usage(Protocol):
    """What machines of the caller's organization have used."""

    async def compute(
        self, caller: Caller, period: Period, *, machine_id: str | None, by_day: bool = False
    ) -> list[ComputeUse]:
        """Return it for each hour or day."""
        ...

    async def storage(self, caller: Caller, period: Period, *, machine_id: str | None) -> list[StorageUse]:
        """Return what disks have taken up on each day."""
        ...

    async def totals(self, caller: Caller, start: Micros) -> Totals:
        """Return what all of them have used since then."""
        ...

    def now(self) -> Micros:
        """Return the present moment."""
        ...


class Keys(Protocol):
    """API keys."""

    def authenticate(self, secret: str) -> Awaitable[Caller]:
        """Return whose key this is. Raises Unauthenticated."""
        ...

    async def create(self, caller: Caller, *, organization: str | None, name: str, admin: bool) -> tuple[Key, str]:
        """Make a key; the string is its secret, which nothing shows again."""
        ...

    async def list(self, caller: Caller) -> list[Key]:
        """Return the keys that the caller may see, oldest first."""
        ...

    async def revoke(self, caller: Caller, key_id: str) -> Key:
        """Revoke a key; a revoked one is returned unchanged."""
        ...


class Webhooks(Protocol):
    """Webhooks of the caller's organization."""

    async def create(self, caller: Caller, order: WebhookOrder) -> tuple[Webhook, str]:
        """Make a webhook; the string is its secret, which nothing shows again."""
        ...

    async def get(self, caller: Caller, webhook_id: str) -> Webhook:
        """Return a webhook."""
        ...

    async def patch(self, caller: Caller, webhook_id: str, change: WebhookChange) -> Webhook:
        """Change what is given."""
        ...

    async def delete(self, caller: Caller, webhook_id: str) -> Webhook:
        """Forget a webhook; it is returned as it was."""
        ...

    async def rotate(self, caller: Caller, webhook_id: str) -> tuple[Webhook, str]:
        """Give it another secret, which nothing shows again."""
        ...

    async def deliveries(
        self, caller: Caller, webhook_id: str, *, before: int | None, limit: int
    ) -> Sequence[Delivery]:
        """Newest first, numbers below `before`."""
        ...

    async def redeliver(self, caller: Caller, webhook_id: str, event_id: str, *, wait_ms: int = 0) -> Delivery:
        """Send an event again; with wait_ms, return once it was attempted, or that time is over."""
        ...

    async def test(self, caller: Caller, webhook_id: str, *, wait_ms: int = 0) -> Delivery:
        """Send a test event; wait_ms as in `redeliver`."""
        ...

    async def list(self, caller: Caller) -> Sequence[Webhook]:
        """Return them, oldest first."""
        ...


class Health(Protocol):
    """Whether the parts that requests need are there."""

    def parts(self) -> Mapping[str, tuple[bool, str]]:
        """Return for each part whether it is ready, and a detail for people (empty when there is none)."""
        ...


class Metrics(Protocol):
    """Figures for an operator's monitoring."""

    def exposition(self) -> bytes:
        """Return all figures in the text format of Prometheus."""
        ...


class Requests(Protocol):
    """Hears of requests."""

    def served(self, method: str, route: str, status: int, seconds: float) -> None:
        """Take a request whose answer has been sent. `route`: its template, or empty; status 0: its client left before."""
        ...


class RequestSpan(Protocol):
    """A request that is being traced."""

    @property
    def trace_id(self) -> str:
        """The trace that it belongs to."""
        ...

    def end(self, route: str, status: int, request_id: str) -> None:
        """Take its end; as in `Requests.served`."""
        ...


class Tracer(Protocol):
    """Traces requests."""

    def begin(self, method: str, parent: TraceContext | None) -> RequestSpan:
        """Begin a span, in the present context; `parent` is the client's, if it sent one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowServices:
    """What the workflow surface builds upon: the engine's own classes."""

    registry: Registry
    workers: Workers
    runs: Runs
    attempts: Attempts
    events: Events
    schedules: Schedules
    triggers: Triggers
    pull: Pull
    batches: Batches
    approvals: Approvals
    traces: Traces
    sessions: Sessions
    lists: Lists
    reruns: Reruns
    keys: ProjectKeys
    check_push_url: Callable[[str], None]
    """Raises Invalid for an address that no worker may have."""
    now: Callable[[], Micros]
    defaults: MachineDefaults
    local: Caller | None = None
    """Who calls without a key; None: nobody may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewServices:
    """What previews build upon: the engine's own class, and under which addresses they are served."""

    previews: Previews
    addresses: PreviewAddresses
    now: Callable[[], Micros]
    """The steady clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What `create_app` builds upon."""

    executions: Executions
    machines: Machines
    terminals: Terminals
    tokens: Tokens
    snapshots: Snapshots
    autoresizing: Autoresizing
    log_tokens: LogTokens
    usage: Usage
    files: Files
    artifacts: Artifacts
    keys: Keys
    webhooks: Webhooks
    health: Health
    metrics: Metrics
    requests: Requests
    tracer: Tracer | None = None
    """None: requests are not traced."""
    limits: Limits
    defaults: MachineDefaults
    terminals_by_id: bool = False
    """Who knows a terminal's id may open its stream without a key (SDK 0.2 to 0.4 send none)."""
    previews: PreviewServices | None = None
    """None: previews are not served."""
    workflows: WorkflowServices | None = None
    """None: the workflow surface is not served."""
