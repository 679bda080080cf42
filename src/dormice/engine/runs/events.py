"""Events of a project's topics: published, read, followed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import uuid4

from msgspec import Struct

from dormice.crash_points import CrashPoint, reached
from dormice.domain.execution import Micros
from dormice.domain.run import Event, Json, Run
from dormice.engine.clock import Clock
from dormice.engine.feed import Feed
from dormice.engine.observer import Observer
from dormice.engine.runs.ledger import Ledger
from dormice.engine.runs.triggers import Triggers
from dormice.engine.tasks import Tasks
from dormice.store.projects import Project
from dormice.store.workflows import EventStore, NewEvent, Told


class EventOrder(Struct, frozen=True, kw_only=True):
    """An event to be published."""

    event_type: str | None
    data: Json
    run_id: str | None = None
    attempt_number: int | None = None


class Events:
    """Raises StoreUnavailable."""

    def __init__(
        self,
        *,
        store: EventStore,
        ledger: Ledger,
        triggers: Triggers,
        feed: Feed,
        tasks: Tasks,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._triggers = triggers
        self._feed = feed
        self._tasks = tasks
        self._clock = clock
        self._observer = observer

    async def publish(self, project: Project, topic: str, orders: Sequence[EventOrder]) -> Sequence[Event]:
        """Record events, in their order, and let go on who waits for them."""
        return await self._tasks.finish(self.record(project, topic, orders))

    async def record(self, project: Project, topic: str, orders: Sequence[EventOrder]) -> Sequence[Event]:
        """The same, for who is not cancelled: the store is asked at once, before anything that comes after it."""
        news = [
            NewEvent(
                id=str(uuid4()),
                event_type=order.event_type,
                data=order.data,
                run_id=order.run_id,
                attempt_number=order.attempt_number,
            )
            for order in orders
        ]
        published = await self._store.publish(project.id, topic, news, now=self._clock.now())
        reached(CrashPoint.EVENT_PUBLISHED)
        self.published(project, published.changed, published.told)
        return published.events

    def published(self, project: Project, changed: Sequence[Run], told: Told | None) -> None:
        """Let go on who waits for what has been committed: changes of runs, and events."""
        if told is None:
            self._ledger.apply(changed)
            return
        for run_id, step_key in told.ended:
            self._ledger.over(run_id, step_key)
        self._observer.published(len(told.topics))
        self._ledger.apply(changed)
        for topic, count in Counter(told.topics).items():
            self._feed.notify(topic_key(project, topic))
            self._triggers.published(project.id, topic, count)

    async def page(
        self,
        project: Project,
        topic: str,
        *,
        after: int,
        since: Micros | None = None,
        limit: int,
        newest_first: bool = False,
    ) -> list[Event]:
        """Return events later than `since` with a greater sequence than `after`; newest first: with a lesser one, if it is not 0."""
        return await self._store.page(
            project.id, topic, after=after, since=since, limit=limit, newest_first=newest_first
        )

    async def follow(
        self,
        project: Project,
        topic: str,
        *,
        after: int,
        since: Micros | None,
        limit: int,
        wait_ms: int,
        run_id: str | None = None,
    ) -> list[Event]:
        """Return the next events; when there are none yet, wait for one, at most so long, or until something happens to the run."""
        keys = [topic_key(project, topic)] if run_id is None else [topic_key(project, topic), run_id]
        with self._feed.listen(*keys) as hint:
            found = await self.page(project, topic, after=after, since=since, limit=limit)
            if found or self._feed.closing:
                return found
            await hint.wait(wait_ms / 1000)
        return await self.page(project, topic, after=after, since=since, limit=limit)

    @property
    def closing(self) -> bool:
        """The server stops: whoever follows is to be let go."""
        return self._feed.closing


def topic_key(project: Project, topic: str) -> str:
    """What listens for a topic's events."""
    return f"topic {project.id} {topic}"
