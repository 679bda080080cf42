"""An organization with a machine, a clock that is moved by hand, and short ways to bring executions into any state."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

from dormice.domain import ids
from dormice.domain.execution import (
    Chunk,
    ErrorCode,
    Execution,
    ExecutionEvent,
    ExecutionState,
    LogEntry,
    Outcome,
    StdinMode,
    Stream,
)
from dormice.domain.machine import Machine
from dormice.store.interface import IdempotencyClaim, LostRace, NewExecution, NewMachine, Progress, Store

START = 1_800_000_000_000_000
MINUTE = 60_000_000


def out(offset: int, data: bytes) -> Chunk:
    return Chunk(Stream.STDOUT, offset, data)


def err(offset: int, data: bytes) -> Chunk:
    return Chunk(Stream.STDERR, offset, data)


def outcome(event: ExecutionEvent, at: int, **fields: Any) -> Outcome:
    """An end with what its event needs."""
    defaults: dict[ExecutionEvent, dict[str, Any]] = {
        ExecutionEvent.SUCCEEDED: {"exit_code": 0},
        ExecutionEvent.FAILED: {"error_code": ErrorCode.MACHINE_LOST, "error_message": "The machine was lost."},
        ExecutionEvent.CANCELLED: {"error_code": ErrorCode.CANCELLED, "error_message": "Cancelled."},
        ExecutionEvent.EXPIRED: {"error_code": ErrorCode.START_DEADLINE_EXCEEDED, "error_message": "Too late."},
    }
    return Outcome(event=event, completed_at=at, **{**defaults.get(event, {}), **fields})


@dataclass
class World:
    """What most tests begin with."""

    store: Store
    organization: str
    machine: Machine
    boot: UUID = field(default_factory=uuid4)
    now: int = START

    @classmethod
    async def made(cls, store: Store) -> World:
        organization = await store.keys.ensure_organization("default", START)
        world = cls(store, organization, machine=None)  # type: ignore[arg-type]
        world.machine = await world.create_machine()
        return world

    def tick(self) -> int:
        self.now += 1_000
        return self.now

    def new_machine(self, **fields: Any) -> NewMachine:
        new = NewMachine(
            id=ids.machine_id(self.now // 1_000, os.urandom(10)),
            organization_id=self.organization,
            vcpu=1.5,
            memory_mib=512,
            storage_gib=4,
            image="default",
            autosleep_seconds=300,
            now=self.tick(),
        )
        return replace(new, **fields)

    async def create_machine(self, **fields: Any) -> Machine:
        machine = await self.store.machines.create(self.new_machine(**fields), None)
        assert isinstance(machine, Machine)
        return machine

    def new(self, **fields: Any) -> NewExecution:
        now = self.tick()
        new = NewExecution(
            id=ids.execution_id(now // 1_000, os.urandom(10)),
            organization_id=self.organization,
            machine_id=self.machine.id,
            command=("sh", "-c", "echo hällo"),
            cwd="/root",
            env={},
            stdin_mode=StdinMode.EMPTY,
            stdin=b"",
            timeout_ms=None,
            now=now,
            start_by=now + 15 * MINUTE,
            awake=True,
            boot_id=None,
        )
        return replace(new, **fields)

    def key(self, key: str = "key", request: str = "request", **fields: Any) -> IdempotencyClaim:
        claim = IdempotencyClaim(
            scope=f"{self.organization} POST /v1/machines",
            key=key,
            request_hash=request,
            now=self.now,
            keep_until=self.now + 1_440 * MINUTE,
        )
        return replace(claim, **fields)

    async def create(self, **fields: Any) -> Execution:
        execution = await self.store.executions.create(self.new(**fields), None)
        assert isinstance(execution, Execution)
        return execution

    async def claimed(self, **fields: Any) -> Execution:
        return await self.create(boot_id=self.boot, **fields)

    async def running(self, **fields: Any) -> Execution:
        return await self.report(await self.claimed(**fields), started_at=self.tick())

    async def ended(self, event: ExecutionEvent = ExecutionEvent.SUCCEEDED, **fields: Any) -> Execution:
        return await self.report(await self.running(**fields), outcome=outcome(event, self.tick()))

    async def in_state(self, state: ExecutionState, **fields: Any) -> Execution:
        """An execution that came into the state by the shortest legal way."""
        match state:
            case ExecutionState.WAKE_IN_PROGRESS:
                return await self.create(awake=False, **fields)
            case ExecutionState.QUEUED:
                return await self.create(**fields)
            case ExecutionState.RUNNING:
                return await self.running(**fields)
            case ExecutionState.EXPIRED:
                expired = await self.create(**fields)
                ended = await self.store.executions.end_unstarted(
                    expired.id, outcome(ExecutionEvent.EXPIRED, self.tick())
                )
                assert isinstance(ended, Execution)
                return ended
            case _:
                return await self.ended(ExecutionEvent(state.value), **fields)

    async def try_report(self, execution: Execution, **fields: Any) -> Execution | LostRace:
        fields.setdefault("boot_id", self.boot)
        return await self.store.executions.progress(Progress(execution_id=execution.id, now=self.tick(), **fields))

    async def report(self, execution: Execution, **fields: Any) -> Execution:
        after = await self.try_report(execution, **fields)
        assert isinstance(after, Execution), after
        return after

    async def stored(self, execution: Execution) -> Execution:
        found = await self.store.executions.get(execution.organization_id, execution.machine_id, execution.id)
        assert found is not None
        return found

    async def log(self, execution: Execution) -> list[LogEntry]:
        """The whole log; asserts that it has no gap and ends where the record says."""
        entries = await self.store.executions.entries(execution, after=0, limit=1_000_000, max_bytes=1 << 40)
        assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
        assert len(entries) == (await self.stored(execution)).last_sequence
        return entries
