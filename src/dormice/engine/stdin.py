"""Feeds committed standard input to running commands, as far as the guest gives credit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dormice.crash_points import CrashPoint, reached, reached_once_sent
from dormice.domain.execution import Execution
from dormice.domain.ids import execution_bytes
from dormice.engine.board import LiveMachine
from dormice.engine.feed import Feed
from dormice.engine.gateway import Gateway
from dormice.protocol import node as wire
from dormice.store.interface import ExecutionStore

CREDIT_BYTES = 65_536


def unread(execution_id: str) -> str:
    """Return the key that the feed tells of when less input waits for a command to read it."""
    return f"{execution_id} stdin"


@dataclass(eq=False, slots=True)
class _Course:
    live: LiveMachine
    written: int | None
    """What the command has been given; None until the guest says so after an attach."""
    sent: int = 0
    trimmed: int = 0
    eof_sent: bool = False
    closed: bool = False


class StdinFeeder:
    """One service for all executions. What was sent is forgotten at every attach: the guest skips repeats."""

    def __init__(self, *, store: ExecutionStore, gateway: Gateway, feed: Feed) -> None:
        self._store = store
        self._gateway = gateway
        self._feed = feed
        self._courses: dict[str, _Course] = {}
        self._dirty: dict[str, None] = {}
        self._work = asyncio.Event()

    def begin(self, live: LiveMachine, execution: Execution) -> None:
        """A start frame was sent: nothing has been written yet."""
        self._courses[execution.id] = _Course(live, written=0)
        self._mark(execution.id)

    def feed(self, live: LiveMachine, execution: Execution) -> None:
        """Have an execution's standard input looked at soon: there is more of it, or it goes on after an attach."""
        self._courses.setdefault(execution.id, _Course(live, written=None))
        self._mark(execution.id)

    def written(self, live: LiveMachine, execution_id: str, written: int, *, closed: bool) -> None:
        """Note the guest's report: credit for more, and nothing below `written` is needed again.

        A guest may lie: what it says of executions that are not its own, or have ended, is nothing to anybody.
        """
        execution = live.claimed.get(execution_id)
        if execution is None:
            return
        written = min(written, execution.stdin_offset)
        course = self._courses.setdefault(execution_id, _Course(live, written=None))
        if course.written is None:
            course.sent = written
        course.written = max(written, course.written or 0)
        course.closed = course.closed or closed
        self._mark(execution_id)

    def restart(self, live: LiveMachine) -> None:
        """Start over for every execution of the machine: frames sent before may be lost, or their boot has ended."""
        for execution_id, course in list(self._courses.items()):
            if course.live is live:
                del self._courses[execution_id]

    def end(self, execution_id: str) -> None:
        """Forget an execution that has ended."""
        self._courses.pop(execution_id, None)

    def _mark(self, execution_id: str) -> None:
        self._dirty[execution_id] = None
        self._work.set()

    async def turn(self) -> None:
        """Wait for work, then do what there is. Raises StoreUnavailable: the turn is taken again."""
        await self._work.wait()
        while self._dirty:
            execution_id = next(iter(self._dirty))
            del self._dirty[execution_id]  # before the look at it: what comes meanwhile marks it again
            try:
                await self._advance(execution_id)
            except Exception:
                self._dirty[execution_id] = None  # behind the others
                raise
        self._work.clear()

    async def _advance(self, execution_id: str) -> None:
        course = self._courses.get(execution_id)
        if course is None or course.written is None:
            return
        if (written := course.written) > course.trimmed:  # more may be written while this is committed
            await self._store.trim_stdin(execution_id, written)
            reached(CrashPoint.STDIN_TRIMMED)
            course.trimmed = written
            self._feed.notify(unread(execution_id))
        execution = course.live.claimed.get(execution_id)
        if execution is None or not course.live.attached or course.closed:
            return
        while (room := course.written + CREDIT_BYTES - course.sent) > 0 and course.sent < execution.stdin_offset:
            segments = await self._store.stdin(execution, offset=course.sent, max_bytes=room)
            if not segments:
                return  # the execution has ended, and its standard input with it
            if self._courses.get(execution_id) is not course:
                return  # another attach has begun meanwhile
            for segment in segments:
                course.sent = max(course.sent, segment.offset)  # what was trimmed has been written
                data = segment.data[course.sent - segment.offset :][:room]
                room -= len(data)
                if data:
                    self._write(course, execution, data)
        if execution.stdin_eof and course.sent == execution.stdin_offset and not course.eof_sent:
            self._write(course, execution, b"")

    def _write(self, course: _Course, execution: Execution, data: bytes) -> None:
        offset, course.sent = course.sent, course.sent + len(data)
        eof = execution.stdin_eof and course.sent == execution.stdin_offset
        course.eof_sent = course.eof_sent or eof
        self._gateway.send(wire.WriteStdin(course.live.machine.id, execution_bytes(execution.id), offset, data, eof))
        reached_once_sent(CrashPoint.STDIN_SENT)
