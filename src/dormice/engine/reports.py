"""What guests have reported and the store does not have yet, and which of it is committed next."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from dormice.domain.execution import Chunk
from dormice.engine.board import LiveMachine
from dormice.protocol import node as wire

MOST_EXECUTIONS = 32
MOST_BYTES = 64 << 10
"""What one commit takes at most, of one piece of output at least: about a millisecond of work, which is how long a short report waits for a flood's."""


@dataclass(eq=False, slots=True)
class Pending:
    """What a guest reported of one execution."""

    live: LiveMachine
    started_at: int | None = None
    chunks: list[Chunk] = field(default_factory=list)
    end: wire.Exited | wire.Refused | None = None

    @property
    def began(self) -> int:
        """When the command started by the guest's clock, from whichever report says so; 0 if none does."""
        return self.started_at or (self.end.started_at if isinstance(self.end, wire.Exited) else 0)

    def put_back(self, newer: Pending | None) -> None:
        """Go before what arrived meanwhile."""
        if newer is not None:
            self.chunks += newer.chunks
            self.end = self.end or newer.end
            self.started_at = self.started_at or newer.started_at


@dataclass(frozen=True, slots=True)
class Turn:
    """One execution's part of a commit: all that is pending of it, or as many of its pieces of output as fit in."""

    execution_id: str
    pending: Pending
    chunks: list[Chunk]

    @property
    def whole(self) -> bool:
        """Whether nothing of it is left for the next commit."""
        return len(self.chunks) == len(self.pending.chunks)


class Reports:
    """Pending reports by machine. Machines take turns: one that reports much does not keep others waiting."""

    def __init__(self) -> None:
        self._machines: OrderedDict[str, dict[str, Pending]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._machines)

    def of(self, live: LiveMachine, execution_id: str) -> Pending:
        """Return what is pending of an execution, to be added to."""
        executions = self._machines.setdefault(live.machine.id, {})
        pending = executions.get(execution_id)
        if pending is None:
            pending = executions[execution_id] = Pending(live)
        return pending

    def put_back(self, turn: Turn, committed: int) -> None:
        """Keep what could not be committed, before anything that arrived meanwhile."""
        executions = self._machines.setdefault(turn.pending.live.machine.id, {})
        turn.pending.chunks = turn.pending.chunks[committed:]
        turn.pending.put_back(executions.get(turn.execution_id))
        executions[turn.execution_id] = turn.pending

    def forget(self, live: LiveMachine) -> None:
        """Drop what is pending for a machine."""
        self._machines.pop(live.machine.id, None)

    def holds(self, live: LiveMachine) -> bool:
        """Whether anything of the machine is pending."""
        return live.machine.id in self._machines

    def has(self, live: LiveMachine, execution_id: str) -> bool:
        """Whether anything of an execution is pending."""
        return execution_id in self._machines.get(live.machine.id, {})

    def take(self) -> list[Turn]:
        """Take out what the next commit is made of."""
        turns: list[Turn] = []
        room = MOST_BYTES
        while self._machines and room > 0 and len(turns) < MOST_EXECUTIONS:
            machine_id, executions = self._machines.popitem(last=False)
            execution_id = next(iter(executions))
            pending = executions.pop(execution_id)
            if executions:
                self._machines[machine_id] = executions  # behind the others
            chunks, size = _head(pending.chunks, room)
            turns.append(Turn(execution_id, pending, chunks))
            room -= size
        return turns


def _head(chunks: list[Chunk], room: int) -> tuple[list[Chunk], int]:
    """The first chunks that fit in, and how many bytes they have; the first one always does."""
    size = 0
    for count, chunk in enumerate(chunks):
        if size and size + len(chunk.data) > room:
            return chunks[:count], size
        size += len(chunk.data)
    return chunks, size
