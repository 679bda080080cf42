"""Terminals as callers see them: create, read, type, resize, follow, end.

A terminal is an execution of the guest's tool `tty`: what is typed is committed before the shell gets it, what it shows is
committed before the guest forgets it. So a terminal outlives every process of ours, and every connection to it.
"""

from __future__ import annotations

import asyncio
import struct
from collections import OrderedDict
from collections.abc import AsyncIterator

from dormice.domain.errors import Conflict, NotFound
from dormice.domain.execution import TTY, Execution, StdinMode, Stream
from dormice.domain.ids import canonical_machine_id
from dormice.domain.limits import Limits
from dormice.domain.terminal import Terminal
from dormice.engine.clock import Clock, new_terminal_id
from dormice.engine.executions import Executions
from dormice.engine.feed import Feed
from dormice.engine.idempotency import InFlight, reused
from dormice.engine.machines import Machines
from dormice.engine.orders import Caller, ExecutionOrder, Idempotency, TerminalOrder
from dormice.engine.stdin import unread
from dormice.engine.tasks import Tasks
from dormice.store.interface import ExecutionStore, IdempotencyClaim, KeyReused, NewExecution, Replayed
from dormice.store.terminals import NewTerminal, TerminalStore

PIECE_BYTES = 64 << 10
_KEEP_ALIVE_SECONDS = 15.0
_INPUT, _SIZE = 0, 1
_NO_SUCH_TERMINAL = "no such terminal on this machine"
_LOCKS = 10_000


class Terminals:
    """The terminals of every machine. Raises the errors of domain/errors.py and StoreUnavailable."""

    def __init__(
        self,
        *,
        store: TerminalStore,
        logs: ExecutionStore,
        executions: Executions,
        machines: Machines,
        feed: Feed,
        in_flight: InFlight,
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._store = store
        self._logs = logs
        self._executions = executions
        self._machines = machines
        self._feed = feed
        self._in_flight = in_flight
        self._tasks = tasks
        self._clock = clock
        self._limits = limits
        self._typing: OrderedDict[str, asyncio.Lock] = OrderedDict()
        """One for each terminal that was typed into of late: what several clients type at once keeps its pieces whole."""

    async def create(
        self,
        caller: Caller,
        machine_id: str,
        order: TerminalOrder,
        idempotency: Idempotency | None,
        *,
        wait_ms: int = 0,
    ) -> Terminal:
        """Record a terminal and start its shell, or wake its machine for it; with wait_ms, return once it is ready."""
        claim = await self._in_flight.claim(caller, idempotency)
        made = await self._tasks.finish(self._create(caller, machine_id, order, claim))
        return await self._wait(made, wait_ms)

    async def _create(
        self, caller: Caller, machine_id: str, order: TerminalOrder, claim: IdempotencyClaim | None
    ) -> Terminal:
        answer: Execution | Replayed | KeyReused | None = None
        terminal_id = new_terminal_id(self._clock)

        async def commit(new: NewExecution) -> Execution | None:
            nonlocal answer
            terminal = NewTerminal(id=terminal_id, width=order.width, height=order.height, execution=new)
            answer = await self._store.create(terminal, claim)
            return answer if isinstance(answer, Execution) else None

        try:
            if (earlier := await self._in_flight.recall(claim)) is not None:
                return await self._of(earlier)
            await self._executions.create_with(caller, machine_id, _execution_order(order), commit)
        finally:
            self._in_flight.settle(claim)
        match answer:
            case Execution():
                return Terminal(id=terminal_id, width=order.width, height=order.height, execution=answer)
            case Replayed(resource_id=execution_id):
                return await self._of(execution_id)
            case KeyReused():
                raise reused(answer)
            case None:
                raise RuntimeError("a terminal was neither made nor refused")

    async def _of(self, execution_id: str) -> Terminal:
        found = await self._store.of_execution(execution_id)
        if found is None:
            raise NotFound(_NO_SUCH_TERMINAL)
        return found

    async def get(self, caller: Caller, machine_id: str, terminal_id: str, *, wait_ms: int = 0) -> Terminal:
        """Return a terminal; with wait_ms, once it is ready or has ended. Raises NotFound."""
        machine_id = canonical_machine_id(machine_id) or ""
        found = await self._store.get(caller.organization_id, machine_id, terminal_id)
        if found is None:
            raise NotFound(_NO_SUCH_TERMINAL)
        return await self._wait(found, wait_ms)

    async def find(self, machine_id: str, terminal_id: str) -> Terminal:
        """Return a terminal to somebody who has shown that he may use it. Raises NotFound."""
        found = await self._store.find(terminal_id)
        if found is None or found.execution.machine_id != canonical_machine_id(machine_id):
            raise NotFound(_NO_SUCH_TERMINAL)
        return found

    @property
    def closing(self) -> bool:
        """The server stops: whoever follows is to be let go."""
        return self._feed.closing

    async def _wait(self, terminal: Terminal, wait_ms: int) -> Terminal:
        execution_id = terminal.execution.id
        return await self._feed.until(
            execution_id,
            terminal,
            wait_ms,
            clock=self._clock,
            reread=lambda _: self._of(execution_id),
            enough=_settled,
        )

    async def page(self, caller: Caller, machine_id: str, *, before: int | None, limit: int) -> list[Terminal]:
        """Return terminals newest first, below the number `before`. Raises NotFound."""
        machine = await self._machines.get(caller, machine_id)
        return await self._store.page(caller.organization_id, machine.id, before=before, limit=limit)

    async def close(self, terminal: Terminal) -> Terminal:
        """Hang up: its shell and all that it started end. One that has ended is returned unchanged."""
        await self._executions.end(terminal.execution)
        return await self._of(terminal.execution.id)

    async def type(self, terminal: Terminal, data: bytes) -> None:
        """Have bytes typed, in pieces among which what others type may come.

        Waits for a shell that does not read. Raises Conflict when it reads nothing for 10 s, or has ended; that piece and what follows it
        are not typed then.
        """
        for start in range(0, len(data), PIECE_BYTES):
            async with self._lock(terminal.id):
                await self._send(terminal, _INPUT, data[start : start + PIECE_BYTES])

    async def resize(self, terminal: Terminal, width: int, height: int) -> None:
        """Give it another size: columns and rows, 1 to 65535 each. Behind what was typed before. Raises Conflict as `type` does."""
        await self._tasks.finish(self._resize(terminal, width, height))

    async def _resize(self, terminal: Terminal, width: int, height: int) -> None:
        async with self._lock(terminal.id):
            await self._send(terminal, _SIZE, struct.pack("<HH", width, height))
            await self._store.resize(terminal.id, width, height)

    async def _send(self, terminal: Terminal, kind: int, body: bytes) -> None:
        message = struct.pack("<BI", kind, len(body)) + body
        most = self._limits.terminal_unread_bytes
        deadline = self._clock.steady() + self._limits.terminal_unread_ms * 1_000
        while True:
            with self._feed.listen(unread(terminal.execution.id)) as hint:
                if await self._executions.append_stdin(terminal.execution, message, most_kept=most):
                    return
                left = deadline - self._clock.steady()
                if left <= 0 or self._feed.closing:
                    raise Conflict(
                        f"the shell does not read: {most} bytes wait for it already (terminal_unread_bytes), these were not typed",
                        retryable=True,
                    )
                await hint.wait(left / 1_000_000)

    def _lock(self, terminal_id: str) -> asyncio.Lock:
        lock = self._typing.pop(terminal_id, None) or asyncio.Lock()
        self._typing[terminal_id] = lock
        if len(self._typing) > _LOCKS:
            oldest = next((key for key, other in self._typing.items() if not other.locked()), None)
            if oldest is not None:
                del self._typing[oldest]
        return lock

    async def shown(self, terminal: Terminal) -> tuple[int, bytes]:
        """Return what is kept of what it has shown, and at which offset that begins."""
        while True:
            execution = terminal.execution
            start, end = self._scrollback(execution), execution.stdout_kept
            data = await self._logs.output(execution, Stream.STDOUT, start=start, end=end)
            if len(data) == end - start:
                return start, data
            terminal = await self._of(execution.id)
            if terminal.execution.stdout_kept == end:
                return start, data

    async def follow(self, terminal: Terminal, *, after: int | None = None) -> AsyncIterator[tuple[int, bytes]]:
        """Yield what it shows with its offset, until it has ended or the server stops: first the scrollback, or what lies
        behind `after`. An empty piece every 15 s in which nothing happens.
        """
        execution = terminal.execution
        at = self._scrollback(execution) if after is None else min(after, execution.stdout_kept)
        while True:
            with self._feed.listen(execution.id) as hint:
                execution = await self._executions.reread(execution)
                while at < execution.stdout_kept:
                    piece = await self._piece(execution, at)
                    if not piece:  # deleted meanwhile: a reader too slow for the scrollback goes on where that begins
                        execution = await self._executions.reread(execution)
                        if self._scrollback(execution) <= at:
                            break
                        at = self._scrollback(execution)
                        continue
                    yield at, piece
                    at += len(piece)
                if execution.terminal or self._feed.closing:
                    return
                newer = await hint.wait(_KEEP_ALIVE_SECONDS)
                if (
                    newer is None
                    and (await self._executions.reread(execution)).last_sequence == execution.last_sequence
                ):
                    yield at, b""

    def _scrollback(self, execution: Execution) -> int:
        """Where what is surely kept begins."""
        return max(execution.stdout_kept - self._limits.terminal_scrollback_bytes, 0)

    async def _piece(self, execution: Execution, at: int) -> bytes:
        end = min(at + PIECE_BYTES, execution.stdout_kept)
        return await self._logs.output(execution, Stream.STDOUT, start=at, end=end)


def _settled(terminal: Terminal) -> bool:
    return terminal.execution.terminal or terminal.execution.started_at is not None


def _execution_order(order: TerminalOrder) -> ExecutionOrder:
    return ExecutionOrder(
        command=(TTY, str(order.width), str(order.height), *order.command),
        cwd=order.cwd,
        env={"TERM": "xterm-256color", **order.env},
        stdin_mode=StdinMode.OPEN,
    )
