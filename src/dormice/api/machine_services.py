"""What the API asks of the engine about machines and what is in them: one protocol for each. See services.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from dormice.domain.execution import Execution, LogEntry, Micros, Stream
from dormice.domain.machine import Machine
from dormice.domain.snapshot import Snapshot
from dormice.domain.ssh import SshSession
from dormice.domain.terminal import Terminal
from dormice.engine.log_tokens import LogGrant
from dormice.engine.orders import Caller, ExecutionOrder, Idempotency, MachineOrder, MachinePatch, TerminalOrder
from dormice.engine.ssh_sessions import SshDoor
from dormice.engine.usage import Period, StorageUse, Totals
from dormice.store.usage import ComputeUse


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


class SshSessions(Protocol):
    """SSH sessions of one machine."""

    @property
    def door(self) -> SshDoor | None:
        """Where the SSH server is found; None: it is turned off."""
        ...

    async def create(
        self, caller: Caller, machine_id: str, public_key: str, idempotency: Idempotency | None, *, wait_ms: int = 0
    ) -> SshSession:
        """Let the holder of a key log in; with wait_ms, return once the machine is up or that time is over."""
        ...

    async def get(self, caller: Caller, machine_id: str, session_id: str, *, wait_ms: int = 0) -> SshSession:
        """Return a session; wait_ms as in `create`."""
        ...

    async def page(self, caller: Caller, machine_id: str, *, before: int | None, limit: int) -> list[SshSession]:
        """Newest first, numbers below `before`."""
        ...

    async def delete(self, caller: Caller, machine_id: str, session_id: str) -> SshSession:
        """End a session and its connections; one that is over is returned unchanged."""
        ...
