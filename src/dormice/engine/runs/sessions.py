"""Sessions: what agents remember of them, what was said, and which runs they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import msgspec
from msgspec import Struct

from dormice.domain.errors import NotFound
from dormice.domain.execution import Micros
from dormice.domain.run import Event, Json, Run, RunState
from dormice.engine.clock import Clock
from dormice.engine.runs.lists import Lists
from dormice.engine.runs.runs import Runs
from dormice.store.lists import RunFilter, RunListStore
from dormice.store.projects import Project
from dormice.store.sessions import Memory, Message, SessionStore
from dormice.store.workflows import EventStore

MOST_EVENTS = 1_000
MOST_CALLS = 1_000
"""What is told of one session's questions and tool calls."""
DOCUMENT_BYTES = 1 << 20
MOST_LOOKED_AT = 10_000


class Usage(Struct, frozen=True):
    """What language models have taken for an agent's run. None: it does not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None


class SessionSummary(Struct, frozen=True, kw_only=True):
    """A session by its last run of an agent."""

    run: Run
    payload: Json | None
    result: Json | None
    usage: Usage
    tool_calls: Sequence[Run]
    questions: Sequence[Event]
    """`suspend_…` and `resume_…` events of the run and all below it, in their order."""
    runs: int = 1
    """How many runs the session has that no run has asked for."""


class Sessions:
    """Raises NotFound, StoreUnavailable."""

    def __init__(
        self,
        *,
        store: SessionStore,
        run_lists: RunListStore,
        events: EventStore,
        runs: Runs,
        lists: Lists,
        clock: Clock,
    ) -> None:
        self._store = store
        self._run_lists = run_lists
        self._events = events
        self._runs = runs
        self._lists = lists
        self._clock = clock

    async def memory(self, project: Project, session_id: str) -> Memory:
        """Return what is remembered; of a session that is not known, nothing."""
        return await self._store.memory(project.id, session_id) or Memory()

    async def remember(self, project: Project, session_id: str, memory: Memory) -> None:
        """Record it, in place of what was remembered before."""
        await self._store.remember(project.id, session_id, memory, self._clock.now())

    async def say(
        self,
        project: Project,
        conversation_id: str,
        agent_id: str,
        *,
        role: str,
        content: Json,
        agent_run_id: str | None,
        deployment_id: str | None,
        keep: int | None,
    ) -> None:
        """Record a message; with `keep`, forget all but so many of the latest."""
        message = Message(
            id=str(uuid4()),
            conversation_id=conversation_id,
            agent_id=agent_id,
            role=role,
            content=content,
            created_at=self._clock.now(),
            agent_run_id=agent_run_id,
            deployment_id=deployment_id,
        )
        await self._store.say(project.id, message, keep=keep)

    async def said(
        self, project: Project, conversation_id: str, agent_id: str, *, deployment_id: str | None, limit: int
    ) -> Sequence[Message]:
        """Return the latest messages, oldest first."""
        return await self._store.said(project.id, conversation_id, agent_id, deployment_id=deployment_id, limit=limit)

    async def page(
        self,
        project: Project,
        *,
        agent_id: str | None,
        state: RunState | None,
        since: Micros | None,
        until: Micros | None,
        offset: int,
        limit: int,
    ) -> Sequence[SessionSummary]:
        """Return sessions by their last runs of agents, the newest first; the filters are for those last runs."""
        which = msgspec.structs.replace(self._lists.of_kind(project, "agent"), roots=True, since=since, until=until)
        if agent_id is not None:
            which = msgspec.structs.replace(which, workflow_ids=(which.workflow_ids or frozenset()) & {agent_id})
        last: dict[str, Run] = {}
        before: int | None = None
        looked_at = 0
        while looked_at < MOST_LOOKED_AT:
            page = await self._run_lists.page(project.id, which, before=before, limit=1_000)
            for run in page.runs:
                last.setdefault(run.session_id or run.id, run)
            looked_at += len(page.runs)
            before = page.before
            if before is None or (state is None and len(last) >= offset + limit):
                break
        wanted = [run for run in last.values() if state in (None, run.state)]
        return [await self._summary(project, run) for run in wanted[offset : offset + limit]]

    async def get(self, project: Project, run_id: str) -> SessionSummary:
        """Return what is told of one run of an agent. Raises NotFound."""
        run = await self._runs.find(project, run_id)
        if run.workflow_id not in (self._lists.of_kind(project, "agent").workflow_ids or ()):
            raise NotFound("no such session: the execution is not an agent's")
        return await self._summary(project, run)

    async def _summary(self, project: Project, run: Run) -> SessionSummary:
        [documents] = await self._run_lists.documents([run], most_bytes=DOCUMENT_BYTES)
        tools = self._lists.of_kind(project, "tool").workflow_ids
        calls = await self._run_lists.page(
            project.id, RunFilter(parent_id=run.id, workflow_ids=tools), before=None, limit=MOST_CALLS
        )
        runs = 1
        if run.session_id is not None:
            runs = await self._run_lists.roots_of_session(project.id, run.session_id)
        return SessionSummary(
            run=run,
            payload=documents.payload,
            result=documents.result,
            usage=_usage(documents.result),
            tool_calls=calls.runs[::-1],
            questions=await self._events.questions(project.id, run.topic, limit=MOST_EVENTS),
            runs=runs,
        )


class _Result(Struct):
    usage: Usage = Usage()


def _usage(result: Json | None) -> Usage:
    try:
        return msgspec.json.decode(result or b"{}", type=_Result).usage
    except msgspec.DecodeError:
        return Usage()
