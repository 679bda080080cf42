"""Takes the guests' reports into the store: what arrives together is committed together, then acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from uuid import UUID

from dormice.crash_points import CrashPoint, reached, reached_once_sent
from dormice.domain.execution import Chunk, Execution, Outcome, Stream
from dormice.domain.ids import execution_bytes, execution_of
from dormice.domain.limits import Limits
from dormice.domain.transitions import IllegalTransition
from dormice.engine import outcomes
from dormice.engine.board import LiveMachine
from dormice.engine.channel import UNLIMITED
from dormice.engine.clock import Clock
from dormice.engine.dispatcher import Dispatcher
from dormice.engine.feed import Feed
from dormice.engine.gateway import Gateway
from dormice.engine.observer import Observer
from dormice.engine.reports import Reports, Turn
from dormice.engine.stdin import StdinFeeder
from dormice.protocol import node as wire
from dormice.store.interface import ExecutionStore, LostRace, OutputMissing, Progress

log = logging.getLogger(__name__)

Report = wire.ExecutionStarted | wire.Output | wire.Exited | wire.Refused


class Runner:
    """One service for all machines. Every turn commits a part of what is pending, one transaction for each execution."""

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
        observer: Observer,
    ) -> None:
        self._kept_limit = limits.kept_output_bytes
        self._scrollback = limits.terminal_scrollback_bytes
        self._store = store
        self._gateway = gateway
        self._dispatcher = dispatcher
        self._feeder = feeder
        self._feed = feed
        self._clock = clock
        self._observer = observer
        self._reports = Reports()
        self._committing: list[Turn] = []
        self._work = asyncio.Event()
        self._settled: asyncio.Future[None] | None = None

    def report(self, live: LiveMachine, message: Report) -> None:
        """Take a report of a guest. It is acknowledged once its commit is durable."""
        reached(CrashPoint.REPORT_RECEIVED)
        pending = self._reports.of(live, execution_of(message.execution))
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
        self._reports.forget(live)
        self._work.set()  # whoever waits until nothing is pending is told so at the end of a turn

    async def settled(self, live: LiveMachine) -> None:
        """Wait until nothing of the machine is pending or being committed."""
        while self._holds(live):
            if self._settled is None:
                self._settled = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._settled)

    def owes(self, live: LiveMachine, execution_id: str) -> bool:
        """Whether something that a guest has reported of an execution is not committed yet."""
        committing = any(turn.execution_id == execution_id for turn in self._committing)
        return committing or self._reports.has(live, execution_id)

    def _holds(self, live: LiveMachine) -> bool:
        return self._reports.holds(live) or any(turn.pending.live is live for turn in self._committing)

    async def turn(self) -> None:
        """Wait for reports, then commit some. Raises StoreUnavailable: the turn is taken again."""
        await self._work.wait()
        self._work.clear()
        self._committing = self._reports.take()
        try:
            failures = await self._commit(self._committing)
        finally:
            self._committing = []
            if self._reports:
                self._work.set()
            if self._settled is not None:
                self._settled.set_result(None)
                self._settled = None
        for failure in failures:
            raise failure

    async def _commit(self, turns: list[Turn]) -> list[BaseException]:
        """Commit all turns at once; return what went wrong with the store."""
        begun: list[tuple[Turn, Execution]] = []
        commits: list[Awaitable[Execution | LostRace]] = []
        for turn in turns:
            live = turn.pending.live
            execution = live.claimed.get(turn.execution_id)
            if execution is None or execution.boot_id is None:
                self._dispatcher.disown(live, turn.execution_id)
                continue
            try:
                progress = self._progress(execution, execution.boot_id, turn)
            except (ValueError, OverflowError) as lie:
                self._stop_liar(live, lie)
                continue
            begun.append((turn, execution))
            commits.append(self._store.progress(progress))
        failures: list[BaseException] = []
        answers = await asyncio.gather(*commits, return_exceptions=True)
        for (turn, before), done in zip(begun, answers, strict=True):
            if isinstance(done, OutputMissing):
                self._ask_again(turn, done)
            elif isinstance(done, ValueError | OverflowError | IllegalTransition):
                self._stop_liar(turn.pending.live, done)
            elif isinstance(done, BaseException):
                self._reports.put_back(turn, 0)
                failures.append(done)
            else:
                self._committed(turn, before, done)
        return failures

    def _stop_liar(self, live: LiveMachine, lie: Exception) -> None:
        """Its guest reports what cannot be: that ends this machine and disturbs no other."""
        log.warning("machine %s lies and is stopped: %s", live.machine.id, lie, extra={"machine_id": live.machine.id})
        if live.machine.boot_id is not None:
            self._gateway.send(wire.StopMachine(live.machine.id, live.machine.boot_id.bytes, 0))

    def _ask_again(self, turn: Turn, missing: OutputMissing) -> None:
        """Have the guest, which has forgotten nothing, say it all once more; what is missing then is lost."""
        live, execution_id = turn.pending.live, turn.execution_id
        live.asked_again.add(execution_id)
        words, fields = "execution %s ended, but %s: asking again", {"machine_id": live.machine.id}
        log.warning(words, execution_id, missing, extra={**fields, "execution_id": execution_id})
        self._gateway.send(wire.SayAgain(live.machine.id))

    def _tell_lost(self, turn: Turn, done: Execution) -> None:
        """Say so if an execution has ended without all of its output."""
        end = turn.pending.end
        if not done.terminal or not isinstance(end, wire.Exited):
            return
        sent = [min(kept, self._limit(done)) for kept in (end.stdout_kept, end.stderr_kept)]
        lost = max(sent[0] - done.stdout_kept, 0) + max(sent[1] - done.stderr_kept, 0)
        if lost:
            fields = {"machine_id": done.machine_id, "execution_id": done.id}
            log.error(
                "execution %s has ended without %d bytes of its output, which are lost", done.id, lost, extra=fields
            )
            self._observer.lost(lost)

    def _progress(self, execution: Execution, boot_id: UUID, turn: Turn) -> Progress:
        now, pending = self._clock.now(), turn.pending
        return Progress(
            execution_id=execution.id,
            boot_id=boot_id,
            now=now,
            started_at=outcomes.clamp(pending.began, execution.created_at, now) if pending.began else None,
            chunks=[kept for chunk in turn.chunks if (kept := self._kept(execution, chunk)).data],
            scrollback=self._scrollback if execution.on_tty else None,
            outcome=self._outcome(execution, turn, now) if turn.whole and pending.end is not None else None,
        )

    def _outcome(self, execution: Execution, turn: Turn, now: int) -> Outcome:
        end = turn.pending.end
        if not isinstance(end, wire.Exited):
            return outcomes.from_refusal(execution, end.reason if end is not None else 0, now)
        asked_again = execution.id in turn.pending.live.asked_again
        return outcomes.from_guest(execution, end, now, 0 if asked_again else self._limit(execution))

    def _limit(self, execution: Execution) -> int:
        return UNLIMITED if execution.on_tty else self._kept_limit

    def _kept(self, execution: Execution, chunk: Chunk) -> Chunk:
        """What of a chunk lies below the kept limit. A true guest sends no more; the store takes no more from any."""
        room = self._limit(execution) - chunk.offset
        return chunk if len(chunk.data) <= room else Chunk(chunk.stream, chunk.offset, chunk.data[: max(room, 0)])

    def _committed(self, turn: Turn, before: Execution, done: Execution | LostRace) -> None:
        reached(CrashPoint.REPORT_COMMITTED)
        live, execution_id = turn.pending.live, turn.execution_id
        if not turn.whole:
            self._reports.put_back(turn, len(turn.chunks))
        # Whoever waits goes on before the guest may forget.
        self._feed.notify(execution_id, done if isinstance(done, Execution) else None)
        if isinstance(done, Execution):
            self._acknowledge(live, done, turn.chunks)
            self._tell_lost(turn, done)
            self._observer.progressed(before, done)
        else:
            live.lost_race(execution_id, done)
            self._dispatcher.disown(live, execution_id)

    def _acknowledge(self, live: LiveMachine, execution: Execution, chunks: list[Chunk]) -> None:
        live.refresh(execution)  # not `place`: its machine's end may have been committed and heard of meanwhile
        name = execution_bytes(execution.id)
        machine_id = live.machine.id
        if execution.terminal:
            reached(CrashPoint.END_COMMITTED)
            self._gateway.post(wire.Forget(machine_id, name))
            self._feeder.end(execution.id)
            live.last_activity_at = self._clock.steady()
            self._dispatcher.pump(live)
            return
        for stream, kept in ((Stream.STDOUT, execution.stdout_kept), (Stream.STDERR, execution.stderr_kept)):
            ends = [chunk.offset + len(chunk.data) for chunk in chunks if chunk.stream is stream]
            if ends:
                self._gateway.send(wire.AckOutput(machine_id, name, stream.value, max(kept, *ends)))
                reached_once_sent(CrashPoint.OUTPUT_ACKNOWLEDGED)
