"""The port of terminals: executions with a size and an id of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dormice.domain.execution import Execution
from dormice.domain.terminal import Terminal
from dormice.store.interface import IdempotencyClaim, KeyReused, NewExecution, Replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTerminal:
    """What `TerminalStore.create` needs."""

    id: str
    width: int
    height: int
    execution: NewExecution


class TerminalStore(Protocol):
    """Terminals. As in `store.interface`: each method one whole transaction, any may raise StoreUnavailable."""

    async def create(self, new: NewTerminal, claim: IdempotencyClaim | None) -> Execution | Replayed | KeyReused:
        """Record a terminal and its execution; return the execution, or the id of the one that the key made before."""
        ...

    async def get(self, organization_id: str, machine_id: str, terminal_id: str) -> Terminal | None:
        """Return a terminal of a machine."""
        ...

    async def of_execution(self, execution_id: str) -> Terminal | None:
        """Return the terminal that an execution is."""
        ...

    async def find(self, terminal_id: str) -> Terminal | None:
        """Return a terminal, whoever owns it: for those who bring a token for it."""
        ...

    async def page(self, organization_id: str, machine_id: str, *, before: int | None, limit: int) -> list[Terminal]:
        """Newest first, numbers below `before`."""
        ...

    async def resize(self, terminal_id: str, width: int, height: int) -> None:
        """Note the size that was last asked for."""
        ...
