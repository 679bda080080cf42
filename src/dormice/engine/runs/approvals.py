"""What suspended runs ask, and the answers: each question is answered once.

Who has the id of a root run may read and answer what its tree asks, without a key (contract, section 1.10); of several questions at one
step, the one that was asked last. Who has the id of a run below it may read and answer what that very run asks.
"""

from __future__ import annotations

from uuid import uuid4

from msgspec import Struct

from dormice.domain.errors import Conflict, NotFound
from dormice.domain.run import Json, Run
from dormice.engine.clock import Clock
from dormice.engine.runs.board import RunBoard
from dormice.engine.runs.checks import uuid_of
from dormice.engine.runs.events import Events
from dormice.engine.runs.registry import Registry
from dormice.engine.tasks import Tasks
from dormice.store.projects import Project
from dormice.store.workflows import EventStore, NewEvent, Question, RunStore


class Asked(Struct, frozen=True, kw_only=True):
    """A question, and the run that was asked about: the one that asks, or the root of its tree."""

    run: Run
    question: Question


class Approvals:
    """Raises NotFound, Conflict, Invalid, StoreUnavailable."""

    def __init__(
        self,
        *,
        store: EventStore,
        runs: RunStore,
        board: RunBoard,
        registry: Registry,
        events: Events,
        tasks: Tasks,
        clock: Clock,
    ) -> None:
        self._store = store
        self._runs = runs
        self._board = board
        self._registry = registry
        self._events = events
        self._tasks = tasks
        self._clock = clock

    async def get(self, run_id: str, step_key: str) -> Asked:
        """Return what is asked at a step of a run; of a root run, or of a run below it."""
        run, _ = await self._find(run_id)
        return Asked(run=run, question=await self._store.question(run.project_id, run.topic, step_key, _asker(run)))

    async def answer(self, run_id: str, step_key: str, data: Json, *, shown: Question | None = None) -> None:
        """Answer it, or that of several which was shown. Raises Conflict when no answer is waited for."""
        run, project = await self._find(run_id)
        asker = _asker(run) if shown is None else shown.run_id
        await self._tasks.finish(self._answer(project, run, step_key, asker, data))

    async def resume(self, project: Project, run: Run, step_key: str, data: Json) -> None:
        """Answer what this very run asks. Raises Conflict when it waits for no answer."""
        await self._tasks.finish(self._answer(project, run, step_key, run.id, data))

    async def _answer(self, project: Project, run: Run, step_key: str, run_id: str | None, data: Json) -> None:
        event = NewEvent(id=str(uuid4()), event_type=f"resume_{step_key}", data=data)
        done = await self._store.answer(project.id, run.topic, step_key, run_id, event, now=self._clock.now())
        if isinstance(done, Question):
            if done.answered:
                raise Conflict("it has been answered already: the first answer counts")
            raise Conflict("no answer is waited for at this step: it was never asked for, or its time is over")
        self._events.published(project, done.changed, done.told)

    async def _find(self, run_id: str) -> tuple[Run, Project]:
        identity = uuid_of(run_id, "path.root_execution_id")
        run = self._board.runs.get(identity) or await self._runs.find(identity)
        project = None if run is None else self._registry.known(run.project_id)
        if run is None or project is None:
            raise NotFound("no such execution")
        return run, project


def _asker(run: Run) -> str | None:
    """The run that has to have asked; None: any one of the tree."""
    return None if run.root_id is None else run.id
