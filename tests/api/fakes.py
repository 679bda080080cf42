"""Small in-memory services behind the API, and records to fill them with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, cast

from msgspec import structs

from dormice.api.app import all_operations
from dormice.api.http.admission import Admission
from dormice.api.http.operation import Operation
from dormice.api.previews.addresses import PreviewAddresses
from dormice.api.services import PreviewServices, Services, Tracer
from dormice.domain.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from dormice.domain.execution import ErrorCode, Execution, ExecutionState, LogEntry, Micros, StdinMode, Stream
from dormice.domain.ids import canonical_machine_id
from dormice.domain.limits import Limits, MachineDefaults
from dormice.domain.machine import DesiredState, Machine, Phase
from dormice.domain.snapshot import Snapshot, SnapshotState
from dormice.domain.ssh import SshSession, SshState
from dormice.domain.terminal import Terminal
from dormice.domain.webhook import FAMILIES, Delivery, DeliveryState, EventType, Webhook
from dormice.engine.clock import SystemClock
from dormice.engine.key_tokens import KeyTokens
from dormice.engine.log_tokens import LogGrant
from dormice.engine.orders import Caller, ExecutionOrder, Idempotency, MachineOrder, MachinePatch
from dormice.engine.ssh_sessions import SshDoor
from dormice.engine.tokens import Tokens
from dormice.engine.usage import DAY_US, Period, StorageUse, Totals
from dormice.engine.webhooks.webhooks import WebhookOrder
from dormice.outbound.targets import URL_CHARACTERS
from dormice.store.interface import Key
from dormice.store.usage import ComputeUse
from dormice.store.webhooks import WebhookChange
from tests.api.fake_artifacts import FakeArtifacts
from tests.api.fake_files import FakeFiles

KEY = "k" * 32
OTHER_KEY = "o" * 32
ADMIN_KEY = "a" * 32
ORGANIZATION = "5f0c1f8e-0000-4000-8000-000000000001"
MACHINE_ID = "dm-019e39e7-3d1b-7a85-a772-475990a3bda1"
IDS = {
    "machine_id": MACHINE_ID,
    "execution_id": "exec-1",
    "terminal_id": "term-1",
    "snapshot_id": "snap-1",
    "session_id": "ssh-1",
    "artifact_id": "art-1",
    "key_id": "key-1",
    "org_id": ORGANIZATION,
    "stream_id": "exec-1",
    "webhook_id": "wh-1",
    "event_id": "evt-1",
}
"""What stands in paths."""
NOW = 1_780_308_000_000_000
"""2026-06-01T10:00:00Z."""


def new_machine(**changes: Any) -> Machine:
    made = Machine(
        number=1,
        id=MACHINE_ID,
        organization_id=ORGANIZATION,
        vcpu=1.0,
        memory_mib=1024,
        storage_gib=10,
        image="default",
        autosleep_seconds=300,
        desired_state=DesiredState.RUNNING,
        phase=Phase.RUNNING,
        reason="DesiredStateReached",
        retryable=False,
        revision=7,
        created_at=NOW,
        last_transition_at=NOW,
        last_progress_at=NOW,
        last_activity_at=NOW,
    )
    return replace(made, **changes)


def new_execution(number: int = 1, **changes: Any) -> Execution:
    made = Execution(
        number=number,
        id=f"exec-{number}",
        organization_id=ORGANIZATION,
        machine_id=MACHINE_ID,
        state=ExecutionState.QUEUED,
        command=("true",),
        cwd="/root",
        env_keys=(),
        stdin_mode=StdinMode.EMPTY,
        timeout_ms=None,
        created_at=NOW,
        start_by=NOW + 900_000_000,
    )
    return structs.replace(made, **changes)


@dataclass
class FakeExecutions:
    """Executions in memory; `changed` is set by tests that make a log grow."""

    closing: bool = False
    records: dict[str, Execution] = field(default_factory=dict)
    logs: dict[str, list[LogEntry]] = field(default_factory=dict)
    orders: list[tuple[ExecutionOrder, Idempotency | None, int]] = field(default_factory=list)
    writes: list[tuple[int, bytes, bool]] = field(default_factory=list)
    error: Exception | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    readers: int = 0

    def add(self, execution: Execution, entries: list[LogEntry] | None = None) -> Execution:
        entries = entries or []
        kept = {stream: sum(len(e.data) for e in entries if e.stream is stream) for stream in Stream}
        execution = structs.replace(
            execution,
            last_sequence=entries[-1].sequence if entries else 0,
            stdout_kept=kept[Stream.STDOUT],
            stderr_kept=kept[Stream.STDERR],
            stdout_bytes=max(execution.stdout_bytes, kept[Stream.STDOUT]),
            stderr_bytes=max(execution.stderr_bytes, kept[Stream.STDERR]),
        )
        self.records[execution.id] = execution
        self.logs[execution.id] = entries
        return execution

    async def grow(self, execution: Execution, entries: list[LogEntry]) -> None:
        async with self.changed:
            self.add(execution, [*self.logs[execution.id], *entries])
            self.changed.notify_all()

    async def create(
        self,
        caller: Caller,
        machine_id: str,
        order: ExecutionOrder,
        idempotency: Idempotency | None,
        *,
        wait_ms: int = 0,
    ) -> Execution:
        self._check(machine_id)
        self.orders.append((order, idempotency, wait_ms))
        number = len(self.records) + 1
        return self.add(
            new_execution(
                number, command=order.command, cwd=order.cwd, env_keys=tuple(order.env), stdin_mode=order.stdin_mode
            )
        )

    async def get(self, caller: Caller, machine_id: str, execution_id: str, *, wait_ms: int = 0) -> Execution:
        self._check(machine_id)
        if execution_id not in self.records:
            raise NotFound("no such execution on this machine")
        return self.records[execution_id]

    async def page(self, caller: Caller, machine_id: str, *, before: int | None, limit: int) -> list[Execution]:
        self._check(machine_id)
        newest = sorted(self.records.values(), key=lambda e: -e.number)
        return [e for e in newest if before is None or e.number < before][:limit]

    async def cancel(self, caller: Caller, machine_id: str, execution_id: str) -> Execution:
        return await self.get(caller, machine_id, execution_id)

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
        execution = await self.get(caller, machine_id, execution_id)
        if wait_ms:
            self.readers += 1
            try:
                async with self.changed:
                    await self.changed.wait_for(lambda: self._has_news(execution_id, after))
            finally:
                self.readers -= 1
            execution = self.records[execution_id]
        found = [entry for entry in self.logs[execution_id] if entry.sequence > after][:limit]
        size, cut = 0, len(found)
        for index, entry in enumerate(found):
            size += len(entry.data)
            if size >= max_bytes:
                cut = index + 1
                break
        return execution, found[:cut]

    def _has_news(self, execution_id: str, after: int) -> bool:
        return self.records[execution_id].terminal or self.records[execution_id].last_sequence > after

    async def output(self, execution: Execution, stream: Stream, *, start: int, end: int) -> bytes:
        whole = b"".join(entry.data for entry in self.logs[execution.id] if entry.stream is stream)
        return whole[start:end]

    async def write_stdin(
        self, caller: Caller, machine_id: str, execution_id: str, *, offset: int, data: bytes, eof: bool
    ) -> Execution:
        execution = await self.get(caller, machine_id, execution_id)
        if offset > execution.stdin_offset:
            raise Conflict("a gap", details={"expected_offset": str(execution.stdin_offset)})
        self.writes.append((offset, data, eof))
        written = structs.replace(execution, stdin_offset=offset + len(data), stdin_eof=eof)
        self.records[execution_id] = written
        return written

    def _check(self, machine_id: str) -> None:
        if self.error is not None:
            raise self.error
        if canonical_machine_id(machine_id) != MACHINE_ID:
            raise NotFound("no such machine")


@dataclass
class FakeMachines:
    """One machine, and what was asked of it."""

    machine: Machine = field(default_factory=new_machine)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    history: list[Machine | None] = field(default_factory=list)
    error: Exception | None = None
    count: int = 3
    """How many a list has."""

    async def create(
        self, caller: Caller, order: MachineOrder, idempotency: Idempotency | None, *, wait_ms: int = 0
    ) -> Machine:
        _judge(order)
        self._note("create", (order, idempotency, wait_ms))
        return self.machine

    async def fork(
        self, caller: Caller, machine_id: str, order: MachineOrder, idempotency: Idempotency | None, *, wait_ms: int = 0
    ) -> Machine:
        return await self.create(caller, order, idempotency, wait_ms=wait_ms)

    async def get(self, caller: Caller, machine_id: str, *, wait_ms: int = 0) -> Machine:
        self._note("get", wait_ms)
        return self._own(machine_id)

    async def page(self, caller: Caller, *, before: int | None, limit: int) -> list[Machine]:
        self._note("page", (before, limit))
        newest = self.count if before is None else before - 1
        return [replace(self.machine, number=number) for number in range(newest, max(0, newest - limit), -1)]

    async def patch(
        self,
        caller: Caller,
        machine_id: str,
        patch: MachinePatch,
        *,
        revision: str | None,
        idempotency: Idempotency | None,
    ) -> Machine:
        _judge(patch)
        self._note("patch", (patch, revision, idempotency))
        return self._own(machine_id)

    async def destroy(
        self,
        caller: Caller,
        machine_id: str,
        *,
        revision: str | None,
        idempotency: Idempotency | None,
        wait_ms: int = 0,
    ) -> Machine:
        self._note("destroy", (revision, idempotency, wait_ms))
        return self._own(machine_id)

    async def sleep(
        self,
        caller: Caller,
        machine_id: str,
        *,
        revision: str | None,
        idempotency: Idempotency | None,
        wait_ms: int = 0,
    ) -> Machine:
        self._note("sleep", (revision, idempotency, wait_ms))
        return self._own(machine_id)

    async def wake(
        self,
        caller: Caller,
        machine_id: str,
        *,
        revision: str | None,
        idempotency: Idempotency | None,
        wait_ms: int = 0,
    ) -> Machine:
        self._note("wake", (revision, idempotency, wait_ms))
        return self._own(machine_id)

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
        self._note("reboot", (force, revision, idempotency, wait_ms))
        return self._own(machine_id)

    async def set_autoresizing(
        self, caller: Caller, machine_id: str, *, enabled: bool, idempotency: Idempotency | None
    ) -> Machine:
        self._note("set_autoresizing", (enabled, idempotency))
        self.machine = replace(self._own(machine_id), autoresizing=enabled)
        return self.machine

    async def changes(self, caller: Caller, machine_id: str) -> AsyncIterator[Machine | None]:
        yield self._own(machine_id)
        for machine in self.history:
            yield machine

    def _note(self, what: str, details: Any) -> None:
        if self.error is not None:
            raise self.error
        self.asked.append((what, details))

    def _own(self, machine_id: str) -> Machine:
        if canonical_machine_id(machine_id) != self.machine.id:
            raise NotFound("no such machine")
        return self.machine


def _judge(order: MachineOrder | MachinePatch) -> None:
    """Refuse what the engine would refuse on a host without end."""
    limits = Limits()
    vcpu, memory, storage = order.vcpu, order.memory_mib, order.storage_gib
    if vcpu is not None and (vcpu < limits.vcpu_min or vcpu % limits.vcpu_step):
        raise Invalid("vcpu goes in steps", location="body.vcpu")
    if memory is not None and memory < limits.memory_mib_min:
        raise Invalid("memory_mib is too small", location="body.memory_mib")
    if storage is not None and not limits.storage_gib_min <= storage <= limits.storage_gib_max:
        raise Invalid("storage_gib is out of range", location="body.storage_gib")


@dataclass
class FakeAutoresizing:
    """What one organization allows."""

    enabled: bool = True

    async def policy(self, caller: Caller) -> bool:
        return self.enabled

    async def set_policy(self, caller: Caller, *, enabled: bool) -> bool:
        self.enabled = enabled
        return enabled


class FakeLogTokens:
    """A token that is its execution's id."""

    def mint(self, caller: Caller, execution: Execution) -> tuple[str, Micros]:
        return f"token-of-{execution.id}", NOW + 900_000_000

    async def grant(self, token: str, stream_id: str) -> LogGrant:
        if token != f"token-of-{stream_id}":
            raise Unauthenticated("invalid token")
        return LogGrant(Caller(ORGANIZATION, "key-1", admin=False), MACHINE_ID, stream_id)


@dataclass
class FakeUsage:
    """One row of each kind, and the periods that were asked for."""

    asked: list[tuple[Period, str | None, bool]] = field(default_factory=list)
    time: Micros = NOW

    async def compute(
        self, caller: Caller, period: Period, *, machine_id: str | None, by_day: bool = False
    ) -> list[ComputeUse]:
        self.asked.append((period, machine_id, by_day))
        use = ComputeUse(
            start=NOW,
            machine_id=MACHINE_ID,
            vcpu=0.5,
            memory_mib=1024,
            storage_gib=10,
            awake_us=90_500_000,
            cpu_us=1_234_567,
            windows=9,
            last_window_end=NOW + 90_500_000,
        )
        return [use]

    async def storage(self, caller: Caller, period: Period, *, machine_id: str | None) -> list[StorageUse]:
        self.asked.append((period, machine_id, True))
        return [StorageUse(machine_id=MACHINE_ID, start=NOW - NOW % DAY_US, storage_gib=10, gib_us=10_000_000)]

    async def totals(self, caller: Caller, start: Micros) -> Totals:
        self.asked.append((Period(start, NOW), None, True))
        return Totals(
            awake_us=1_999_999, cpu_us=5_000, memory_mib_us=2_000_000, storage_gib_us=1_000_000, provisioned_gib=10
        )

    def now(self) -> Micros:
        return self.time


@dataclass
class FakeKeys:
    """Three keys, one of them an admin's."""

    authentications: int = 0

    async def authenticate(self, secret: str) -> Caller:
        self.authentications += 1
        if secret not in {KEY, ADMIN_KEY}:
            raise Unauthenticated("invalid API key")
        return Caller(organization_id=ORGANIZATION, key_id="key-1", admin=secret == ADMIN_KEY)

    async def create(self, caller: Caller, *, organization: str | None, name: str, admin: bool) -> tuple[Key, str]:
        self._admins_only(caller)
        return self._key(name, admin=admin), "s" * 40

    async def list(self, caller: Caller) -> list[Key]:
        return [self._key("first", admin=False)]

    async def revoke(self, caller: Caller, key_id: str) -> Key:
        self._admins_only(caller)
        if key_id != "key-1":
            raise NotFound("no such key")
        return replace(self._key("first", admin=False), revoked_at=NOW)

    async def is_valid(self, key_id: str) -> bool:
        return key_id == "key-1"

    def while_valid(self, key_id: str) -> AbstractAsyncContextManager[None]:
        assert key_id == "key-1"
        return nullcontext()

    @staticmethod
    def _admins_only(caller: Caller) -> None:
        if not caller.admin:
            raise Forbidden("an admin key is needed")

    @staticmethod
    def _key(name: str, *, admin: bool) -> Key:
        return Key(
            id="key-1",
            organization_id=ORGANIZATION,
            organization="default",
            name=name,
            admin=admin,
            prefix="dm_abc",
            created_at=NOW,
        )


class FakeWebhooks:
    """One webhook with one delivery."""

    webhook = Webhook(
        id="wh-1",
        organization_id=ORGANIZATION,
        url="https://example.com",
        events=tuple(FAMILIES),
        enabled=True,
        created_at=NOW,
        revision=1,
    )
    sent = Delivery(
        number=1, webhook_id="wh-1", event_id="evt-1", type=EventType.TEST, at=NOW, state=DeliveryState.PENDING
    )

    async def create(self, caller: Caller, order: WebhookOrder, idempotency: Idempotency | None) -> tuple[Webhook, str]:
        _judge_url(order.url)
        return structs.replace(self.webhook, url=order.url, events=order.events, enabled=order.enabled), "whsec_cw=="

    async def get(self, caller: Caller, webhook_id: str) -> Webhook:
        if webhook_id != self.webhook.id:
            raise NotFound("no such webhook")
        return self.webhook

    async def patch(self, caller: Caller, webhook_id: str, change: WebhookChange) -> Webhook:
        _judge_url(change.url)
        return await self.get(caller, webhook_id)

    async def delete(self, caller: Caller, webhook_id: str) -> Webhook:
        return await self.get(caller, webhook_id)

    async def rotate(self, caller: Caller, webhook_id: str) -> tuple[Webhook, str]:
        return await self.get(caller, webhook_id), "whsec_cw=="

    async def deliveries(
        self, caller: Caller, webhook_id: str, *, before: int | None, limit: int
    ) -> Sequence[Delivery]:
        await self.get(caller, webhook_id)
        return [self.sent] if before is None else []

    async def redeliver(self, caller: Caller, webhook_id: str, event_id: str, *, wait_ms: int = 0) -> Delivery:
        await self.get(caller, webhook_id)
        if event_id != self.sent.event_id:
            raise NotFound("no such delivery")
        return self.sent

    async def test(self, caller: Caller, webhook_id: str, *, wait_ms: int = 0) -> Delivery:
        await self.get(caller, webhook_id)
        return self.sent

    async def list(self, caller: Caller) -> Sequence[Webhook]:
        return [self.webhook]


def _judge_url(url: str | None) -> None:
    """Refuse what no URL can be: which ones are called is judged elsewhere."""
    if url is not None and not 0 < len(url) <= URL_CHARACTERS:
        raise Invalid("url is none", location="body.url")


@dataclass
class FakeHealth:
    """Parts as a test sets them."""

    state: dict[str, tuple[bool, str]] = field(default_factory=lambda: {"store": (True, ""), "node": (True, "")})

    def parts(self) -> Mapping[str, tuple[bool, str]]:
        return self.state


class FakeMetrics:
    async def exposition(self) -> bytes:
        return b"up 1\n"


@dataclass
class FakeRequests:
    seen: list[tuple[str, str, int]] = field(default_factory=list)

    def served(self, method: str, route: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append((method, route, status))


class NoTerminals:
    """Machines without terminals: what they do is tested on real ones."""

    closing = False

    async def create(self, caller: Caller, machine_id: str, *_: object, wait_ms: int = 0) -> Terminal:
        raise NotFound("no such machine")

    async def get(self, caller: Caller, machine_id: str, terminal_id: str, *, wait_ms: int = 0) -> Terminal:
        raise NotFound("no such terminal on this machine")

    async def find(self, machine_id: str, terminal_id: str) -> Terminal:
        raise NotFound("no such terminal on this machine")

    async def page(self, caller: Caller, machine_id: str, *, before: int | None, limit: int) -> list[Terminal]:
        raise NotFound("no such machine")

    async def close(self, terminal: Terminal) -> Terminal:
        raise AssertionError(terminal)

    async def type(self, terminal: Terminal, data: bytes) -> None:
        raise AssertionError(terminal, data)

    async def resize(self, terminal: Terminal, width: int, height: int) -> None:
        raise AssertionError(terminal, width, height)

    async def shown(self, terminal: Terminal) -> tuple[int, bytes]:
        raise AssertionError(terminal)

    def follow(self, terminal: Terminal, *, after: int | None = None) -> AsyncIterator[tuple[int, bytes]]:
        raise AssertionError(terminal, after)


class FakeSnapshots:
    """An organization that has one."""

    known = Snapshot(
        number=1,
        id="snap-1",
        organization_id=ORGANIZATION,
        machine_id=MACHINE_ID,
        name="first",
        state=SnapshotState.READY,
        storage_gib=10,
        image="default",
        created_at=NOW,
        bytes=4096,
    )

    async def create(
        self, caller: Caller, machine: Machine, name: str, idempotency: Idempotency | None, *, wait_ms: int = 0
    ) -> Snapshot:
        return replace(self.known, name=name)

    async def get(self, caller: Caller, snapshot_id: str, *, wait_ms: int = 0) -> Snapshot:
        if snapshot_id != self.known.id:
            raise NotFound("no such snapshot")
        return self.known

    async def page(self, caller: Caller, machine_id: str | None, *, before: int | None, limit: int) -> list[Snapshot]:
        return [self.known] if before is None else []

    async def delete(self, caller: Caller, snapshot_id: str, *, wait_ms: int = 0) -> Snapshot:
        return replace(await self.get(caller, snapshot_id), state=SnapshotState.DELETING)


@dataclass
class FakeSshSessions:
    """One session of each id that is asked for."""

    door: SshDoor | None = field(
        default_factory=lambda: SshDoor(
            endpoint="ssh.example", port=7422, host_pattern="[ssh.example]:7422", host_authority="ssh-ed25519 AAAA"
        )
    )
    state: SshState = SshState.READY

    async def create(
        self, caller: Caller, machine_id: str, public_key: str, idempotency: Idempotency | None, *, wait_ms: int = 0
    ) -> SshSession:
        if canonical_machine_id(machine_id) != MACHINE_ID:
            raise NotFound("no such machine")
        return self._session("ssh-1")

    async def get(self, caller: Caller, machine_id: str, session_id: str, *, wait_ms: int = 0) -> SshSession:
        if session_id != "ssh-1" or canonical_machine_id(machine_id) != MACHINE_ID:
            raise NotFound("no such SSH session")
        return self._session(session_id)

    async def page(self, caller: Caller, machine_id: str, *, before: int | None, limit: int) -> list[SshSession]:
        if canonical_machine_id(machine_id) != MACHINE_ID:
            raise NotFound("no such machine")
        return [self._session("ssh-1")] if before is None or before > 1 else []

    async def delete(self, caller: Caller, machine_id: str, session_id: str) -> SshSession:
        return await self.get(caller, machine_id, session_id)

    def _session(self, session_id: str) -> SshSession:
        return SshSession(
            number=1,
            id=session_id,
            organization_id=ORGANIZATION,
            machine_id=MACHINE_ID,
            state=self.state,
            created_by="key-1",
            certificate="ssh-ed25519-cert-v01@openssh.com AAAA",
            created_at=NOW,
            expires_at=NOW + 1,
            ready_at=NOW if self.state is SshState.READY else None,
        )


@dataclass
class World:
    """All the fakes, and the services made of them."""

    executions: FakeExecutions = field(default_factory=FakeExecutions)
    machines: FakeMachines = field(default_factory=FakeMachines)
    autoresizing: FakeAutoresizing = field(default_factory=FakeAutoresizing)
    log_tokens: FakeLogTokens = field(default_factory=FakeLogTokens)
    usage: FakeUsage = field(default_factory=FakeUsage)
    ssh_sessions: FakeSshSessions = field(default_factory=FakeSshSessions)
    artifacts: FakeArtifacts = field(default_factory=lambda: FakeArtifacts(MACHINE_ID, NOW))
    files: FakeFiles = field(default_factory=lambda: FakeFiles(MACHINE_ID, NOW))
    keys: FakeKeys = field(default_factory=FakeKeys)
    webhooks: FakeWebhooks = field(default_factory=FakeWebhooks)
    health: FakeHealth = field(default_factory=FakeHealth)
    metrics: FakeMetrics = field(default_factory=FakeMetrics)
    requests: FakeRequests = field(default_factory=FakeRequests)
    tracer: Tracer | None = None
    previews: PreviewServices | None = None
    limits: Limits = field(default_factory=Limits)

    def services(self) -> Services:
        return Services(
            executions=self.executions,
            machines=self.machines,
            terminals=NoTerminals(),
            key_tokens=KeyTokens(
                Tokens(sign=lambda text: sha256(text).hexdigest(), clock=SystemClock()), self.keys.is_valid
            ),
            snapshots=FakeSnapshots(),
            autoresizing=self.autoresizing,
            log_tokens=self.log_tokens,
            usage=self.usage,
            ssh_sessions=self.ssh_sessions,
            files=self.files,
            artifacts=self.artifacts,
            keys=self.keys,
            webhooks=self.webhooks,
            health=self.health,
            metrics=self.metrics,
            requests=self.requests,
            tracer=self.tracer,
            previews=self.previews,
            limits=self.limits,
            defaults=MachineDefaults(),
        )

    def operations(self) -> list[Operation]:
        """Every documented route."""
        services = self.services()
        return all_operations(services, Admission(services))


PREVIEWS_DECLARED = PreviewServices(previews=cast("Any", None), addresses=PreviewAddresses(), now=lambda: NOW)
"""For routes of previews that are looked at and not asked: tests/previews asks a real server."""


def lifecycle(sequence: int, state: ExecutionState, **more: Any) -> LogEntry:
    return LogEntry(sequence=sequence, at=NOW + sequence, state=state, **more)


def chunk(sequence: int, data: bytes, offset: int, stream: Stream = Stream.STDOUT) -> LogEntry:
    return LogEntry(sequence=sequence, at=NOW + sequence, stream=stream, offset=offset, data=data)


def finished(
    number: int = 1, pieces: list[tuple[Stream, bytes]] | None = None, **changes: Any
) -> tuple[Execution, list[LogEntry]]:
    """A succeeded execution that wrote these pieces, with its log."""
    entries = [lifecycle(1, ExecutionState.QUEUED), lifecycle(2, ExecutionState.RUNNING)]
    offsets = dict.fromkeys(Stream, 0)
    for stream, data in pieces or []:
        entries.append(chunk(len(entries) + 1, data, offsets[stream], stream))
        offsets[stream] += len(data)
    state = changes.pop("state", ExecutionState.SUCCEEDED)
    entries.append(lifecycle(len(entries) + 1, state, exit_code=changes.get("exit_code", 0)))
    execution = new_execution(number, state=state, started_at=NOW, completed_at=NOW + 5, exit_code=0)
    return structs.replace(execution, **changes), entries


FAILED: dict[str, Any] = {
    "state": ExecutionState.FAILED,
    "exit_code": 1,
    "error_code": ErrorCode.NONZERO_EXIT,
    "error_message": "exit 1",
}
