"""Executions as callers see them: create, read, wait, cancel, feed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dormice.crash_points import CrashPoint, reached
from dormice.domain.errors import Conflict, MachineConflict, NotFound, RateLimited
from dormice.domain.execution import Execution, ExecutionState, LogEntry, Stream
from dormice.domain.ids import canonical_machine_id
from dormice.domain.limits import Limits
from dormice.domain.machine import Phase
from dormice.engine.board import Board, LiveMachine
from dormice.engine.clock import Clock, new_execution_id
from dormice.engine.collector import CollectionHints
from dormice.engine.dispatcher import Dispatcher
from dormice.engine.feed import Feed
from dormice.engine.idempotency import InFlight, reused
from dormice.engine.machines import Machines
from dormice.engine.observer import Observer
from dormice.engine.orders import Caller, ExecutionOrder, Idempotency
from dormice.engine.reconciler import Reconciler
from dormice.engine.stdin import StdinFeeder
from dormice.engine.tasks import Tasks
from dormice.store.interface import (
    ExecutionStore,
    IdempotencyClaim,
    KeyReused,
    NewExecution,
    Replayed,
    StdinRefusal,
)

_NO_SUCH_EXECUTION = "no such execution on this machine"
_NO_SUCH_MACHINE = "no such machine"


class Executions:
    """The executions of every machine. Raises the errors of domain/errors.py and StoreUnavailable."""

    def __init__(
        self,
        *,
        store: ExecutionStore,
        board: Board,
        machines: Machines,
        dispatcher: Dispatcher,
        reconciler: Reconciler,
        feeder: StdinFeeder,
        feed: Feed,
        in_flight: InFlight,
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
        observer: Observer,
        hints: CollectionHints,
    ) -> None:
        self._store = store
        self._board = board
        self._machines = machines
        self._dispatcher = dispatcher
        self._reconciler = reconciler
        self._feeder = feeder
        self._feed = feed
        self._in_flight = in_flight
        self._tasks = tasks
        self._clock = clock
        self._observer = observer
        self._hints = hints
        self._limits = limits

    async def create(
        self,
        caller: Caller,
        machine_id: str,
        order: ExecutionOrder,
        idempotency: Idempotency | None,
        *,
        wait_ms: int = 0,
    ) -> Execution:
        """Record the execution and start it, or queue it, or wake its machine for it.

        The same idempotency key again returns the execution that the first request made.
        """
        machine_id = canonical_machine_id(machine_id) or ""
        claim = await self._in_flight.claim(caller, idempotency)
        # A dropped connection must not leave a committed execution that nobody starts.
        execution = await self._tasks.finish(self._create(caller, machine_id, order, claim))
        return await self._ended(execution, wait_ms)

    async def create_with(
        self,
        caller: Caller,
        machine_id: str,
        order: ExecutionOrder,
        commit: Callable[[NewExecution], Awaitable[Execution | None]],
    ) -> Execution | None:
        """Create an execution in a transaction of the caller's: `commit` records it, or says that there is nothing to create.

        To be run in a task that nobody cancels.
        """
        live = self._admit(caller, canonical_machine_id(machine_id) or "")
        if not live.awake:
            self._reconciler.want_running(live)
        new, direct = self._new(caller, live, order)
        with _reserved(live, direct=direct):
            made = await commit(new)
        if made is not None:
            self._placed(live, made, order)
        return made

    async def _create(
        self, caller: Caller, machine_id: str, order: ExecutionOrder, claim: IdempotencyClaim | None
    ) -> Execution:
        try:
            live = self._admit(caller, machine_id)
            return await self._create_claimed(caller, live, order, claim)
        except (NotFound, Conflict, RateLimited):
            if (earlier := await self._in_flight.recall(claim)) is not None:
                return await self.get(caller, machine_id, earlier)
            raise
        finally:
            self._in_flight.settle(claim)

    async def _create_claimed(
        self, caller: Caller, live: LiveMachine, order: ExecutionOrder, claim: IdempotencyClaim | None
    ) -> Execution:
        if not live.awake:
            if (earlier := await self._in_flight.recall(claim)) is not None:
                return await self.get(caller, live.machine.id, earlier)
            self._reconciler.want_running(live)  # the first step of its wake is committed together with the execution
        new, direct = self._new(caller, live, order)
        with _reserved(live, direct=direct):
            made = await self._store.create(new, claim)
        match made:
            case Execution():
                self._placed(live, made, order)
                return made
            case Replayed(resource_id=execution_id):
                return await self.get(caller, live.machine.id, execution_id)
            case KeyReused():
                raise reused(made)

    def _new(self, caller: Caller, live: LiveMachine, order: ExecutionOrder) -> tuple[NewExecution, bool]:
        """Return what is to be recorded, and whether it takes one of the machine's slots at once."""
        awake = live.awake
        direct = awake and live.attached and not live.queue and live.free_slots(self._limits.running_per_machine) > 0
        start_timeout_ms = order.start_timeout_ms or self._limits.start_timeout_default_ms
        new = NewExecution(
            id=new_execution_id(self._clock),
            organization_id=caller.organization_id,
            machine_id=live.machine.id,
            command=order.command,
            cwd=order.cwd,
            env=order.env,
            stdin_mode=order.stdin_mode,
            stdin=order.stdin,
            timeout_ms=order.timeout_ms,
            now=self._clock.now(),
            start_by=self._clock.steady() + start_timeout_ms * 1000,
            awake=awake,
            boot_id=live.machine.boot_id if direct else None,
            artifacts=order.artifacts,
        )
        return new, direct

    def _placed(self, live: LiveMachine, made: Execution, order: ExecutionOrder) -> None:
        reached(CrashPoint.EXECUTION_COMMITTED)
        if order.artifacts:
            self._hints.expect(made.id)
        live.place(made)
        self._set_going(live, made, order)
        self._observer.created(made)

    def _admit(self, caller: Caller, machine_id: str) -> LiveMachine:
        live = self._board.owned(caller.organization_id, machine_id)
        if live is None:
            raise NotFound(_NO_SUCH_MACHINE)
        phase = live.machine.phase
        if phase in (Phase.FAILED, Phase.DESTROYING):
            raise MachineConflict(
                f"the machine is {phase.value}: it takes no executions",
                details={"current_observed_state": "error" if phase is Phase.FAILED else phase.value},
            )
        if len(live.queue) + len(live.waking) >= self._limits.queued_per_machine:
            raise RateLimited(
                f"the machine has {self._limits.queued_per_machine} executions waiting (queued_per_machine)",
                retry_after_ms=1000,
            )
        return live

    def _set_going(self, live: LiveMachine, execution: Execution, order: ExecutionOrder) -> None:
        if not live.awake or execution.state is ExecutionState.WAKE_IN_PROGRESS:
            self._reconciler.want_running(live)
        elif execution.boot_id is not None:
            self._dispatcher.start(live, execution, order.env)
        else:
            self._dispatcher.pump(live)

    async def get(self, caller: Caller, machine_id: str, execution_id: str, *, wait_ms: int = 0) -> Execution:
        """Return an execution; with wait_ms, once it has ended or that time is over. Raises NotFound."""
        machine_id = canonical_machine_id(machine_id) or ""
        live = self._board.owned(caller.organization_id, machine_id)
        execution = live.find(execution_id) if live is not None else None
        if execution is None:
            execution = await self._store.get(caller.organization_id, machine_id, execution_id)
        if execution is None or execution.on_tty:  # a terminal is shown as one
            raise NotFound(_NO_SUCH_EXECUTION)
        return await self._ended(execution, wait_ms)

    async def _ended(self, execution: Execution, wait_ms: int) -> Execution:
        return await self._feed.ended(execution, wait_ms, clock=self._clock, reread=self.reread)

    async def reread(self, execution: Execution) -> Execution:
        """Return an execution as it is now."""
        live = self._board.get(execution.machine_id)
        if live is not None and (found := live.find(execution.id)) is not None:
            return found
        stored = await self._store.get(execution.organization_id, execution.machine_id, execution.id)
        return stored or execution

    async def page(self, caller: Caller, machine_id: str, *, before: int | None, limit: int) -> list[Execution]:
        """Return executions newest first, below the number `before`. Raises NotFound."""
        machine = await self._machines.get(caller, machine_id)
        return await self._store.page(caller.organization_id, machine.id, before=before, limit=limit)

    async def end(self, execution: Execution) -> Execution:
        """Ask for the end of an execution that the caller was given."""
        return execution if execution.terminal else await self._tasks.finish(self._cancel(execution))

    async def cancel(self, caller: Caller, machine_id: str, execution_id: str) -> Execution:
        """Ask for the end of an execution: SIGTERM, grace, kill. A finished one is returned unchanged."""
        return await self.end(await self.get(caller, machine_id, execution_id))

    async def _cancel(self, execution: Execution) -> Execution:
        now = self._clock.now()
        asked = await self._store.request_cancel(execution.id, now)
        if asked is None:
            raise NotFound(_NO_SUCH_EXECUTION)
        reached(CrashPoint.CANCEL_COMMITTED)
        live = self._board.get(asked.machine_id)
        if live is not None:
            live.refresh(asked)
            if not asked.terminal:
                self._dispatcher.cancel(live, asked)
        self._feed.notify(asked.id)
        if asked.terminal and asked.cancel_requested_at == now:  # ended here, not before
            self._observer.finished(asked)
        return asked

    @property
    def closing(self) -> bool:
        """The server stops: whoever follows is to be let go."""
        return self._feed.closing

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
        """Return the execution and its log above `after`; with wait_ms, waits for the first such entry."""
        execution = await self.get(caller, machine_id, execution_id)
        execution = await self._feed.ended(
            execution,
            wait_ms,
            clock=self._clock,
            reread=self.reread,
            enough=lambda one: one.last_sequence > after,
        )
        if execution.last_sequence <= after:
            return execution, []
        entries = await self._store.entries(execution, after=after, limit=limit, max_bytes=max_bytes)
        if not entries:
            await self._check_kept(execution)
        return execution, entries

    async def output(self, execution: Execution, stream: Stream, *, start: int, end: int) -> bytes:
        """Return kept bytes of a stream, start <= offset < end. Raises NotFound when the execution was deleted meanwhile."""
        data = await self._store.output(execution, stream, start=start, end=end)
        if not data:
            await self._check_kept(execution)
        return data

    async def _check_kept(self, execution: Execution) -> None:
        if await self._store.get(execution.organization_id, execution.machine_id, execution.id) is None:
            raise NotFound(_NO_SUCH_EXECUTION)

    async def write_stdin(
        self, caller: Caller, machine_id: str, execution_id: str, *, offset: int, data: bytes, eof: bool
    ) -> Execution:
        """Commit bytes of an open standard input at their offset. Raises Conflict on a gap or after the end."""
        execution = await self.get(caller, machine_id, execution_id)
        taken = await self._tasks.finish(self._write_stdin(execution, offset, data, eof=eof))
        return taken or execution  # never full: no bound was named

    async def append_stdin(self, execution: Execution, data: bytes, *, most_kept: int) -> bool:
        """Commit bytes behind what is committed of an open standard input, whole also among those of others.

        False when more than `most_kept` bytes would then wait for the command to read. Raises Conflict.
        """
        taken = await self._tasks.finish(self._write_stdin(execution, None, data, eof=False, most_kept=most_kept))
        return taken is not None

    async def _write_stdin(
        self, execution: Execution, offset: int | None, data: bytes, *, eof: bool, most_kept: int | None = None
    ) -> Execution | None:
        now = self._clock.now()
        taken: Any = await self._store.append_stdin(execution.id, offset, data, eof=eof, now=now, most_kept=most_kept)
        match taken:
            case StdinRefusal.FULL:
                return None
            case Execution():
                reached(CrashPoint.STDIN_COMMITTED)
                live = self._board.get(taken.machine_id)
                if live is not None:
                    live.refresh(taken)
                    self._feeder.feed(live, taken)
                return taken
            case StdinRefusal.GAP:
                current = await self.reread(execution)
                raise Conflict(
                    f"offset {offset} leaves a gap: {current.stdin_offset} bytes are committed; continue from there",
                    details={"expected_offset": str(current.stdin_offset)},
                )
            case StdinRefusal.CLOSED:
                raise Conflict("standard input is closed: eof was sent, or the execution was made without stdin_open")
            case StdinRefusal.ENDED:
                raise Conflict("the execution has ended: nobody reads its standard input any more")
            case _:
                raise NotFound(_NO_SUCH_EXECUTION)


@contextmanager
def _reserved(live: LiveMachine, *, direct: bool) -> Iterator[None]:
    """Count what is being recorded: it holds the machine awake, and takes its slot."""
    live.arriving += 1
    live.reserved += direct
    try:
        yield
    finally:
        live.arriving -= 1
        live.reserved -= direct
