"""Triggers: events of a topic start runs, as soon as they are published, each event once.

A publication is a hint only: what is to be done is read from the store, beyond the trigger's cursor, which moves with the runs in one
transaction. A trigger fires for the deployment that registered its workflow last. When that was another deployment than the trigger's,
its workflow does not want these events any more, and they stay where they are until a deployment does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count, islice

from dormice.domain.automation import Trigger
from dormice.domain.errors import Invalid, NotFound
from dormice.domain.run import Event
from dormice.engine.clock import Clock, new_id
from dormice.engine.runs.agenda import Agenda
from dormice.engine.runs.automatic import AutomaticRuns
from dormice.engine.runs.orders import TriggerOrder
from dormice.engine.runs.policy import RunPolicy
from dormice.engine.runs.registry import Registry
from dormice.engine.tasks import Tasks
from dormice.store.automation import NewTrigger, TriggerStore
from dormice.store.projects import Project
from dormice.store.workflows import NewRun

TOGETHER = 16
"""Triggers that act at the same time, at most."""
AT_ONCE = 64
"""Runs of single events that one transaction makes, at most: others go in between."""
MOST_BYTES = 8 << 20
"""A batch whose events have so many bytes is full; a single event may have more."""


class Triggers:
    """One service for all projects. Raises NotFound, Invalid, StoreUnavailable."""

    def __init__(
        self,
        *,
        store: TriggerStore,
        registry: Registry,
        runs: AutomaticRuns,
        agenda: Agenda,
        tasks: Tasks,
        clock: Clock,
        policy: RunPolicy,
    ) -> None:
        self._store = store
        self._registry = registry
        self._runs = runs
        self._agenda = agenda
        self._tasks = tasks
        self._clock = clock
        self._policy = policy
        self._known: dict[str, Trigger] = {}
        self._of_topic: dict[tuple[str, str], dict[str, None]] = {}
        """Ids by project and topic."""
        self._dirty: dict[str, int] = {}
        """Ids of triggers that are to look for events, the longest waiting first, with the number of the hint."""
        self._hints = count()
        self._work = asyncio.Event()
        self._wanting: dict[str, int] = {}
        """How many events a batch that has begun wants before it is full."""

    async def load(self) -> None:
        """Rebuild memory from the store, and see what was published and not acted upon."""
        for trigger in await self._store.all():
            self._know(trigger)
            self._look(trigger.id)

    # What clients may ask

    async def register(self, project: Project, order: TriggerOrder) -> Trigger:
        """Record a trigger, or change the one with this workflow and topic, which goes on where it is."""
        return await self._tasks.finish(self._register(project, order))

    async def _register(self, project: Project, order: TriggerOrder) -> Trigger:
        if not self._registry.offers(project.id, order.deployment_id, order.workflow_id):
            raise Invalid(
                "the deployment has no workflow of this id: register it first, with trigger_on_event: true",
                location="body.workflow_id",
                status=400,
            )
        self._check_room(project, order)
        new = NewTrigger(
            id=new_id(self._clock),
            project_id=project.id,
            workflow_id=order.workflow_id,
            topic=order.topic,
            deployment_id=order.deployment_id,
            queue_name=order.queue_name or order.workflow_id,
            batch_size=order.batch_size,
            batch_timeout_seconds=order.batch_timeout_seconds,
            now=self._clock.now(),
        )
        trigger = await self._store.put(new)
        self._know(trigger)
        self._look(trigger.id)
        return trigger

    def _check_room(self, project: Project, order: TriggerOrder) -> None:
        most, own = self._policy.triggers_per_project, self.all(project)
        known = any((one.workflow_id, one.topic) == (order.workflow_id, order.topic) for one in own)
        if not known and len(own) >= most:
            raise Invalid(
                f"a project may have at most {most} triggers: delete some", location="body.event_topic", status=400
            )

    def all(self, project: Project) -> list[Trigger]:
        """Return the triggers of the project, in the order in which they were made."""
        own = (trigger for trigger in self._known.values() if trigger.project_id == project.id)
        return sorted(own, key=lambda trigger: trigger.id)

    async def delete(self, project: Project, trigger_id: str) -> None:
        """Forget a trigger; its runs go on. Raises NotFound."""
        trigger = self._known.get(trigger_id)
        if trigger is None or trigger.project_id != project.id:
            raise NotFound("no such event trigger")
        await self._tasks.finish(self._delete(trigger))

    async def _delete(self, trigger: Trigger) -> None:
        await self._store.delete(trigger.project_id, trigger.id)
        self._forget(trigger)

    def fires(self, trigger: Trigger) -> bool:
        """Whether the deployment that registered its workflow last is the trigger's."""
        newest = self._registry.newest(trigger.project_id, trigger.workflow_id)
        return newest is not None and newest.deployment_id == trigger.deployment_id

    # Events

    def published(self, project_id: str, topic: str, count: int) -> None:
        """Hear that so many events were published."""
        for identity in self._of_topic.get((project_id, topic), ()):
            if identity in self._wanting:
                self._wanting[identity] -= count
                if self._wanting[identity] > 0:
                    continue
            self._look(identity)

    async def turn(self) -> None:
        """Wait until a trigger is to look for events, then let some of them act. What raises is done again, and raised."""
        await self._work.wait()
        looking = dict(islice(self._dirty.items(), TOGETHER))
        results = await asyncio.gather(*map(self._act, looking), return_exceptions=True)
        failures = []
        for (identity, hint), result in zip(looking.items(), results, strict=True):
            if isinstance(result, BaseException):
                failures.append(result)
                self._look(identity)
            elif self._dirty.get(identity) == hint:
                del self._dirty[identity]
        if not self._dirty:
            self._work.clear()
        if failures:
            raise failures[0]

    def _look(self, identity: str) -> None:
        self._dirty.pop(identity, None)  # who has just acted goes behind the others
        self._dirty[identity] = next(self._hints)
        self._work.set()

    async def _time_is_up(self, identity: str) -> None:
        self._look(identity)

    async def _act(self, identity: str) -> None:
        """Make the runs of the next events, if they are enough, or have waited long enough."""
        trigger = self._known.get(identity)
        if trigger is None or not self.fires(trigger):
            return
        self._wanting.pop(identity, None)
        limit = trigger.batch_size if trigger.batched else AT_ONCE
        pending = await self._store.pending(trigger, limit=limit, most_bytes=MOST_BYTES)
        events = pending.events
        if not events or (not pending.more and self._waits(trigger, events)):
            return
        news = await self._runs_for(trigger, events)
        fired = await self._store.fire(trigger, news, cursor=events[-1].sequence)
        self._runs.made(news, fired.changed)
        if fired.trigger is None:
            self._forget(trigger)
        elif identity in self._known:
            self._know(fired.trigger)
            if pending.more or not fired.changed:
                self._look(identity)

    def _waits(self, trigger: Trigger, events: Sequence[Event]) -> bool:
        """Whether a batch is to become fuller, for as long as it has time; its time is on the agenda then."""
        missing = trigger.batch_size - len(events)
        if trigger.batch_timeout_seconds is None or missing <= 0:
            return False
        due = events[0].created_at + trigger.batch_timeout_seconds * 1_000_000
        left = due - self._clock.now()
        if left <= 0:
            return False
        self._wanting[trigger.id] = missing
        key = ("batch", trigger.id)
        self._agenda.put(self._clock.steady() + left, key, lambda: self._time_is_up(trigger.id))
        return True

    async def _runs_for(self, trigger: Trigger, events: Sequence[Event]) -> list[NewRun]:
        documents = [event.document() for event in events]
        if trigger.batched:
            documents = [b'{"events":[' + b",".join(documents) + b"]}"]
        return [
            await self._runs.new(
                trigger.project_id,
                trigger.workflow_id,
                trigger.deployment_id,
                document,
                queue_name=trigger.queue_name,
            )
            for document in documents
        ]

    # Memory

    def _know(self, trigger: Trigger) -> None:
        before = self._known.get(trigger.id)
        if before is not None and before.revision >= trigger.revision:
            return
        self._known[trigger.id] = trigger
        self._of_topic.setdefault((trigger.project_id, trigger.topic), {})[trigger.id] = None

    def _forget(self, trigger: Trigger) -> None:
        self._agenda.drop(("batch", trigger.id))
        self._wanting.pop(trigger.id, None)
        if self._known.pop(trigger.id, None) is not None:
            ids = self._of_topic[trigger.project_id, trigger.topic]
            del ids[trigger.id]
            if not ids:
                del self._of_topic[trigger.project_id, trigger.topic]
