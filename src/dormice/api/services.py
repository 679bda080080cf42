"""What the API asks of the engine. The engine's classes fit these protocols; tests bring their own.

Every method raises the errors of `dormice.domain.errors` and no others; ids are taken as the client wrote them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dormice.api.file_services import Artifacts, Files
from dormice.api.machine_services import (
    Autoresizing,
    Executions,
    LogTokens,
    Machines,
    Snapshots,
    SshSessions,
    Terminals,
    Usage,
)
from dormice.domain.execution import Micros
from dormice.domain.limits import Limits, MachineDefaults
from dormice.domain.webhook import Delivery, Webhook
from dormice.engine.key_tokens import KeyTokens
from dormice.engine.keys import Keys as ProjectKeys
from dormice.engine.orders import Caller, Idempotency
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
from dormice.engine.webhooks.webhooks import WebhookOrder
from dormice.store.interface import Key
from dormice.store.webhooks import WebhookChange

if TYPE_CHECKING:
    from dormice.api.http.trace_context import TraceContext
    from dormice.api.previews.addresses import PreviewAddresses


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

    async def is_valid(self, key_id: str) -> bool:
        """Whether there is a key of that id that is not revoked."""
        ...

    def while_valid(self, key_id: str) -> AbstractAsyncContextManager[None]:
        """Cancel the block as soon as the key is revoked. Raises Unauthenticated then."""
        ...


class Webhooks(Protocol):
    """Webhooks of the caller's organization."""

    async def create(self, caller: Caller, order: WebhookOrder, idempotency: Idempotency | None) -> tuple[Webhook, str]:
        """Make a webhook; the string is its secret, which nothing else shows."""
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

    async def exposition(self) -> bytes:
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
    key_tokens: KeyTokens
    snapshots: Snapshots
    autoresizing: Autoresizing
    log_tokens: LogTokens
    usage: Usage
    ssh_sessions: SshSessions
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
