"""Takes the guests' reports into the store: what arrives together is committed together, then acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass, field
from uuid import UUID

from dormice.domain.execution import Chunk, Execution, Outcome, Stream
from dormice.domain.ids import execution_bytes, execution_of
from dormice.domain.limits import Limits
from dormice.domain.transitions import IllegalTransition
from dormice.engine import outcomes
from dormice.engine.board import LiveMachine
from dormice.engine.clock import Clock
from dormice.engine.dispatcher import Dispatcher
from dormice.engine.feed import Feed
from dormice.engine.gateway import Gateway
from dormice.engine.stdin import StdinFeeder
from dormice.protocol import node as wire
from dormice.store.interface import ExecutionStore, LostRace, Progress

log = logging.getLogger(__name__)

COMMIT_BYTES = 256 << 10
"""At most so much output of one execution goes into one commit, so that a flood does not delay the others."""

Report = wire.ExecutionStarted | wire.Output | wire.Exited | wire.Refused


@dataclass(eq=False, slots=True)
class _Pending:
    """What a guest reported of one execution and the store does not have yet."""

    live: LiveMachine
    started_at: int | None = None
    chunks: list[Chunk] = field(default_factory=list)
    end: wire.Exited | wire.Refused | None = None

    @property
    def began(self) -> int:
        """When the command started by the guest's clock, from whichever report says so; 0 if none does."""
        return self.started_at or (self.end.started_at if isinstance(self.end, wire.Exited) else 0)


class Runner:
    """One service for all machines. Every turn commits all that is pending, one transaction for each execution."""

    def __init__(
        self,
        *,
        store: ExecutionStore,
        gateway: Gateway,
        dispatcher: Dispatcher,
        feeder: StdinFeeder,
        feed: Feed,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._kept_limit = limits.kept_output_bytes
        self._store = store
        self._gateway = gateway
        self._dispatcher = dispatcher
        self._feeder = feeder
        self._feed = feed
        self._clock = clock
        self._pending: dict[str, _Pending] = {}
        self._committing: dict[str, LiveMachine] = {}
        self._work = asyncio.Event()
        self._settled: asyncio.Future[None] | None = None

    def report(self, live: LiveMachine, message: Report) -> None:
        """Take a report of a guest. It is acknowledged once its commit is durable."""
        execution_id = execution_of(message.execution)
        pending = self._pending.get(execution_id)
        if pending is None:
            pending = self._pending[execution_id] = _Pending(live)
            self._work.set()
        match message:
            case wire.Output():
                pending.chunks.append(Chunk(Stream(message.stream), message.offset, message.data))
            case wire.ExecutionStarted():
                pending.started_at = message.at
            case _:
                pending.end = message

    def forget(self, live: LiveMachine) -> None:
        """Drop what is pending for a machine whose connection is gone: its guest sends all of it again."""
        for execution_id in [execution_id for execution_id, pending in self._pending.items() if pending.live is live]:
            del self._pending[execution_id]
        self._work.set()  # whoever waits until nothing is pending is told so at the end of a turn

    async def settled(self, live: LiveMachine) -> None:
        """Wait until nothing of the machine is pending or being committed."""
        while self._holds(live):
            if self._settled is None:
                self._settled = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._settled)

    def _holds(self, live: LiveMachine) -> bool:
        pending = self._pending.values()
        return live in self._committing.values() or any(one.live is live for one in pending)

    async def turn(self) -> None:
        """Wait for reports, then commit all of them. Raises StoreUnavailable: the turn is taken again."""
        await self._work.wait()
        self._work.clear()
        batch, self._pending = self._pending, {}
        self._committing = {execution_id: pending.live for execution_id, pending in batch.items()}
        try:
            failures = await self._commit(batch)
        finally:
            self._committing = {}
            if self._pending:
                self._work.set()
            if self._settled is not None:
                self._settled.set_result(None)
                self._settled = None
        for failure in failures:
            raise failure

    async def _commit(self, batch: dict[str, _Pending]) -> list[BaseException]:
        """Commit what is pending of each execution, all at once; return what went wrong with the store."""
        begun: list[tuple[str, _Pending, list[Chunk]]] = []
        commits: list[Awaitable[Execution | LostRace]] = []
        for execution_id, pending in batch.items():
            execution = pending.live.claimed.get(execution_id)
            if execution is None or execution.boot_id is None:
                self._dispatcher.disown(pending.live, execution_id)
                continue
            chunks = _head(pending)
            try:
                progress = self._progress(execution, execution.boot_id, pending, chunks)
            except (ValueError, OverflowError) as lie:
                self._stop_liar(pending.live, lie)
                continue
            begun.append((execution_id, pending, chunks))
            commits.append(self._store.progress(progress))
        failures: list[BaseException] = []
        answers = await asyncio.gather(*commits, return_exceptions=True)
        for (execution_id, pending, chunks), done in zip(begun, answers, strict=True):
            if isinstance(done, ValueError | OverflowError | IllegalTransition):
                self._stop_liar(pending.live, done)
            elif isinstance(done, BaseException):
                self._put_back(execution_id, pending, 0)
                failures.append(done)
            else:
                self._committed(execution_id, pending, chunks, done)
        return failures

    def _stop_liar(self, live: LiveMachine, lie: Exception) -> None:
        """Its guest reports what cannot be: that ends this machine and disturbs no other."""
        log.warning("machine %s lies and is stopped: %s", live.machine.id, lie)
        if live.machine.boot_id is not None:
            self._gateway.send(wire.StopMachine(live.machine.id, live.machine.boot_id.bytes, 0))

    def _progress(self, execution: Execution, boot_id: UUID, pending: _Pending, chunks: list[Chunk]) -> Progress:
        now = self._clock.now()
        whole = len(chunks) == len(pending.chunks)
        return Progress(
            execution_id=execution.id,
            boot_id=boot_id,
            now=now,
            started_at=outcomes.clamp(pending.began, execution.created_at, now) if pending.began else None,
            chunks=[kept for chunk in chunks if (kept := self._kept(chunk)).data],
            outcome=_outcome(execution, pending, now) if whole and pending.end is not None else None,
        )

    def _kept(self, chunk: Chunk) -> Chunk:
        """What of a chunk lies below the kept limit. A true guest sends no more; the store takes no more from any."""
        room = self._kept_limit - chunk.offset
        return chunk if len(chunk.data) <= room else Chunk(chunk.stream, chunk.offset, chunk.data[: max(room, 0)])

    def _committed(self, execution_id: str, pending: _Pending, chunks: list[Chunk], done: Execution | LostRace) -> None:
        live = pending.live
        if len(chunks) < len(pending.chunks):
            self._put_back(execution_id, pending, len(chunks))
        # Whoever waits goes on before the guest may forget.
        self._feed.notify(execution_id, done if isinstance(done, Execution) else None)
        if isinstance(done, Execution):
            self._acknowledge(live, done, chunks)
        else:
            live.drop(execution_id)
            self._dispatcher.disown(live, execution_id)

    def _put_back(self, execution_id: str, pending: _Pending, committed: int) -> None:
        """Keep what could not be committed, before anything that arrived meanwhile."""
        newer = self._pending.get(execution_id)
        pending.chunks = pending.chunks[committed:]
        if newer is not None:
            pending.chunks += newer.chunks
            pending.end = pending.end or newer.end
            pending.started_at = pending.started_at or newer.started_at
        self._pending[execution_id] = pending
        self._work.set()

    def _acknowledge(self, live: LiveMachine, execution: Execution, chunks: list[Chunk]) -> None:
        live.refresh(execution)  # not `place`: its machine's end may have been committed and heard of meanwhile
        name = execution_bytes(execution.id)
        machine_id = live.machine.id
        if execution.terminal:
            self._gateway.post(wire.Forget(machine_id, name))
            self._feeder.end(execution.id)
            live.last_activity_at = self._clock.now()
            self._dispatcher.pump(live)
            return
        for stream, kept in ((Stream.STDOUT, execution.stdout_kept), (Stream.STDERR, execution.stderr_kept)):
            ends = [chunk.offset + len(chunk.data) for chunk in chunks if chunk.stream is stream]
            if ends:
                self._gateway.send(wire.AckOutput(machine_id, name, stream.value, max(kept, *ends)))


def _head(pending: _Pending) -> list[Chunk]:
    size = 0
    for count, chunk in enumerate(pending.chunks):
        if size and size + len(chunk.data) > COMMIT_BYTES:
            return pending.chunks[:count]
        size += len(chunk.data)
    return pending.chunks


def _outcome(execution: Execution, pending: _Pending, now: int) -> Outcome:
    if isinstance(pending.end, wire.Exited):
        return outcomes.from_guest(execution, pending.end, now)
    return outcomes.from_refusal(execution, pending.end.reason if pending.end is not None else 0, now)
