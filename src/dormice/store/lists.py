"""The port of the store for lists of runs. Every list walks an index and never far at once, however much there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from dormice.domain.execution import Micros
from dormice.domain.run import Json, Run, RunState


class RunFilter(Struct, frozen=True, kw_only=True):
    """Which runs of a project are listed; None leaves a field open."""

    states: frozenset[RunState] | None = None
    workflow_ids: frozenset[str] | None = None
    other_workflows: frozenset[str] = frozenset()
    """Workflows whose runs are left out."""
    queue_name: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    batch_id: str | None = None
    parent_id: str | None = None
    roots: bool = False
    """Only what no run has asked for."""
    since: Micros | None = None
    until: Micros | None = None

    def has(self, run: Run) -> bool:
        """Whether a run is one of them."""
        return (
            (self.states is None or run.state in self.states)
            and (self.workflow_ids is None or run.workflow_id in self.workflow_ids)
            and run.workflow_id not in self.other_workflows
            and self.queue_name in (None, run.queue_name)
            and self.session_id in (None, run.session_id)
            and self.user_id in (None, run.user_id)
            and self.batch_id in (None, run.batch_id)
            and self.parent_id in (None, run.parent_id)
            and not (self.roots and run.parent_id is not None)
            and (self.since is None or run.created_at >= self.since)
            and (self.until is None or run.created_at < self.until)
        )


class RunPage(Struct, frozen=True, kw_only=True):
    """Runs, the newest first. `before`: the number below which the list goes on; None: it does not.

    A page may be short, or empty, and go on all the same: there is a bound to how many runs are looked at for one page.
    """

    runs: Sequence[Run]
    before: int | None


class RunDocuments(Struct, frozen=True, kw_only=True):
    """What a run was given, and what came of it, as far as it is short."""

    payload: Json | None
    result: Json | None
    omitted: bool
    """Whether one of them is too long to be listed."""


class RunListStore(Protocol):
    """Lists of a project's runs."""

    async def page(
        self, project_id: str, which: RunFilter, *, before: int | None, limit: int, most: int | None = None
    ) -> RunPage:
        """Return the newest with numbers below `before`; at most `most` runs are looked at (None: a sensible number)."""
        ...

    async def documents(self, runs: Sequence[Run], *, most_bytes: int) -> list[RunDocuments]:
        """Return the documents of runs, those longer than `most_bytes` left out."""
        ...

    async def roots_of_session(self, project_id: str, session_id: str) -> int:
        """Count the runs of a session that no run has asked for."""
        ...
