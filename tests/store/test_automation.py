"""Schedules and triggers: a run is made, and its tick or its events are done with, in one transaction; guards hold."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from dormice.domain.automation import CatchUp, Schedule, ScheduleStatus, TickOutcome, Trigger
from dormice.domain.run import RunState
from dormice.store.automation import NewSchedule, NewTick, NewTrigger, Pending
from dormice.store.lists import RunFilter
from dormice.store.projects import Project, Queue
from dormice.store.sqlite import statements
from dormice.store.sqlite.schedules import KEPT_TICKS
from dormice.store.workflows import Attempt, NewEvent, NewRun, RunResult

NOW = 1_800_000_000_000_000
MINUTE = 60_000_000


class Bench:
    """A project, and short ways to what the tests need."""

    def __init__(self, store: Any, project_id: str) -> None:
        self.store = store
        self.project_id = project_id

    def run(self, **fields: Any) -> NewRun:
        """Return a run to be made."""
        defaults: dict[str, Any] = {
            "id": str(uuid4()),
            "project_id": self.project_id,
            "workflow_id": "flow",
            "payload": b"1",
            "deployment_id": "d1",
            "queue_name": "flow",
            "now": NOW,
        }
        return NewRun(**defaults | fields)

    def new_schedule(self, **fields: Any) -> NewSchedule:
        """Return a schedule to be put."""
        defaults: dict[str, Any] = {
            "id": str(uuid4()),
            "project_id": self.project_id,
            "workflow_id": "flow",
            "key": "k",
            "cron": "* * * * *",
            "timezone": "UTC",
            "catch_up": None,
            "overlap": None,
            "next_run_at": NOW + MINUTE,
            "deployment_id": "d1",
            "now": NOW,
        }
        return NewSchedule(**defaults | fields)

    async def schedule(self, **fields: Any) -> Schedule:
        """Put a schedule."""
        schedule: Schedule = (await self.store.schedules.put(self.new_schedule(**fields))).schedule
        return schedule

    async def tick(self, schedule: Schedule, at: int, **fields: Any) -> Any:
        """Tick once, with a run."""
        tick = NewTick(at=at, outcome=TickOutcome.RUN, run=self.run(**fields))
        return await self.store.schedules.tick(schedule, [tick], next_run_at=at + MINUTE, now=at)

    async def trigger(self, **fields: Any) -> Trigger:
        """Put a trigger."""
        defaults: dict[str, Any] = {
            "id": str(uuid4()),
            "project_id": self.project_id,
            "workflow_id": "flow",
            "topic": "t",
            "deployment_id": "d1",
            "queue_name": "q",
            "batch_size": 1,
            "batch_timeout_seconds": None,
            "now": NOW,
        }
        trigger: Trigger = await self.store.triggers.put(NewTrigger(**defaults | fields))
        return trigger

    async def publish(self, *data: bytes, topic: str = "t") -> list[int]:
        """Publish events; return their sequences."""
        news = [NewEvent(id=str(uuid4()), event_type=None, data=one) for one in data]
        published = await self.store.events.publish(self.project_id, topic, news, now=NOW)
        return [event.sequence for event in published.events]

    async def runs(self) -> list[str]:
        """Return the ids of all runs, oldest first."""
        found = (await self.store.lists.page(self.project_id, RunFilter(), before=None, limit=1_000)).runs
        return [run.id for run in reversed(found)]


@pytest.fixture
async def bench(store: Any) -> Bench:
    organization = await store.keys.ensure_organization("default", NOW)
    project = Project(
        id=str(uuid4()), organization_id=organization, name="p", is_default=True, created_at=NOW, updated_at=NOW
    )
    return Bench(store, (await store.projects.ensure_project(project)).id)


@pytest.mark.parametrize(
    ("constraint", "words"),
    [("schedule_catch_up", CatchUp), ("schedule_status", ScheduleStatus), ("tick_outcome", TickOutcome)],
)
def test_a_check_knows_exactly_the_words_of_the_domain(constraint: str, words: type[StrEnum]) -> None:
    body = statements.read("workflows-schema.sql").split(f"CONSTRAINT {constraint} CHECK", 1)[1].split("\n", 1)[0]
    assert set(re.findall(r"'(\w+)'", body)) == {word.value for word in words}


# Schedules


async def test_a_schedule_is_known_by_its_project_workflow_and_key(bench: Bench) -> None:
    stored = await bench.store.schedules.put(bench.new_schedule())
    assert stored.queue == Queue(project_id=bench.project_id, deployment_id="d1", name="flow", concurrency_limit=1)
    assert stored.queue in await bench.store.projects.queues()
    assert (stored.schedule.catch_up, stored.schedule.overlap) == (CatchUp.NONE, False)
    again = await bench.schedule(catch_up=CatchUp.ONE, overlap=True, now=NOW + 1, next_run_at=NOW + 5)
    assert again == replace(stored.schedule, catch_up=CatchUp.ONE, overlap=True, revision=2, updated_at=NOW + 1), (
        "what ticks as before keeps its next tick"
    )
    other = await bench.schedule(key="other", workflow_id="another")
    assert [one.id for one in await bench.store.schedules.all()] == sorted((again.id, other.id))


@pytest.mark.parametrize("change", [{"cron": "1 * * * *"}, {"timezone": "Europe/Berlin"}])
async def test_a_schedule_that_ticks_otherwise_has_another_next_tick(bench: Bench, change: dict[str, str]) -> None:
    await bench.schedule()
    assert (await bench.schedule(**change, next_run_at=NOW + 5)).next_run_at == NOW + 5


async def test_the_queue_has_no_limit_while_a_schedule_of_the_workflow_may_overlap(bench: Bench) -> None:
    limits = [
        (await bench.store.schedules.put(bench.new_schedule(**fields))).queue.concurrency_limit
        for fields in ({}, {"key": "2", "overlap": True}, {}, {"key": "2", "overlap": False})
    ]
    assert limits == [1, None, None, 1]


async def test_a_tick_makes_its_run_and_goes_on(bench: Bench) -> None:
    schedule = await bench.schedule()
    done = await bench.tick(schedule, NOW + MINUTE, deployment_id="d2")
    [run] = done.changed
    assert (run.state, await bench.runs()) == (RunState.QUEUED, [run.id])
    assert done.schedule == replace(schedule, revision=2, last_run_at=NOW + MINUTE, next_run_at=NOW + 2 * MINUTE)
    assert ("d2", "flow") in {(one.deployment_id, one.name) for one in await bench.store.projects.queues()}
    [tick] = await bench.store.schedules.ticks(done.schedule, before=None, limit=10)
    assert (tick.at, tick.outcome, tick.run_id) == (NOW + MINUTE, TickOutcome.RUN, run.id)
    assert await bench.store.schedules.ticks(done.schedule, before=NOW + MINUTE, limit=10) == []


async def test_a_tick_of_a_schedule_that_is_another_one_by_now_does_nothing(bench: Bench) -> None:
    old = await bench.schedule()
    new = await bench.schedule(overlap=True)
    refused = await bench.tick(old, NOW + MINUTE)
    assert (refused.schedule, refused.ticks, refused.changed) == (new, (), ())
    paused = await bench.store.schedules.pause(bench.project_id, new.id, now=NOW)
    for known in (new, paused):
        assert (await bench.tick(known, NOW + MINUTE)).schedule == paused
    assert await bench.store.schedules.delete(bench.project_id, new.id)
    assert (await bench.tick(new, NOW + MINUTE)).schedule is None
    assert await bench.runs() == []


async def test_a_moment_makes_one_run_however_often_it_comes(bench: Bench) -> None:
    schedule = (await bench.tick(await bench.schedule(overlap=True), NOW + MINUTE)).schedule
    again = await bench.tick(schedule, NOW + MINUTE)
    assert (again.ticks, again.changed, len(await bench.runs())) == ([], [], 1)
    assert again.schedule.last_run_at == NOW + MINUTE


async def test_an_open_run_is_in_the_way_until_it_ends(bench: Bench) -> None:
    first = await bench.tick(await bench.schedule(), NOW + MINUTE)
    second = await bench.tick(first.schedule, NOW + 2 * MINUTE)
    [run], [tick] = first.changed, second.ticks
    assert (tick.outcome, tick.run_id, second.changed) == (TickOutcome.SKIPPED, run.id, [])
    assert (second.schedule.last_run_at, second.schedule.last_skipped_at) == (NOW + MINUTE, NOW + 2 * MINUTE)
    await bench.store.runs.claim(run.id, "w", now=NOW, accepted_at=NOW)
    third = await bench.tick(second.schedule, NOW + 3 * MINUTE)
    assert third.changed == []
    await bench.store.runs.complete(run.id, Attempt(worker_id="w"), RunResult(), now=NOW)
    assert len((await bench.tick(third.schedule, NOW + 4 * MINUTE)).changed) == 1


async def test_the_last_ticks_are_kept_and_those_whose_runs_are_open(bench: Bench) -> None:
    done = await bench.tick(await bench.schedule(), NOW)
    count = KEPT_TICKS + 30
    for number in range(1, count):
        done = await bench.tick(done.schedule, NOW + number * MINUTE)
    ticks = await bench.store.schedules.ticks(done.schedule, before=None, limit=1_000)
    assert len(ticks) == KEPT_TICKS + 1
    assert [tick.at for tick in ticks[:2]] == [NOW + (count - 1) * MINUTE, NOW + (count - 2) * MINUTE]
    assert (ticks[-1].at, ticks[-1].outcome) == (NOW, TickOutcome.RUN)
    [run] = await bench.runs()
    assert {tick.run_id for tick in ticks} == {run}


async def test_ticks_whose_runs_have_ended_are_forgotten_though_they_may_overlap(bench: Bench) -> None:
    schedule = await bench.schedule(overlap=True)
    for number in range(KEPT_TICKS + 30):
        done = await bench.tick(schedule, NOW + number * MINUTE)
        schedule = done.schedule
        await bench.store.runs.claim(done.changed[0].id, "w", now=NOW, accepted_at=NOW)
        await bench.store.runs.complete(done.changed[0].id, Attempt(worker_id="w"), RunResult(), now=NOW)
    assert len(await bench.store.schedules.ticks(schedule, before=None, limit=1_000)) == KEPT_TICKS


async def test_only_its_own_project_changes_a_schedule(bench: Bench) -> None:
    schedule = await bench.schedule()
    store = bench.store.schedules
    assert await store.pause("another", schedule.id, now=NOW) is None
    assert await store.resume("another", schedule.id, next_run_at=NOW, now=NOW) is None
    assert not await store.delete("another", schedule.id)
    assert await store.all() == [schedule]


async def test_a_pause_and_its_end_are_told_once(bench: Bench) -> None:
    schedule = await bench.schedule()
    store, project_id = bench.store.schedules, bench.project_id
    assert await store.resume(project_id, schedule.id, next_run_at=1, now=NOW + 1) == schedule
    paused = await store.pause(project_id, schedule.id, now=NOW + 2)
    assert paused == replace(schedule, status=ScheduleStatus.PAUSED, revision=2, updated_at=NOW + 2)
    assert await store.pause(project_id, schedule.id, now=NOW + 3) == paused
    resumed = await store.resume(project_id, schedule.id, next_run_at=NOW + 9, now=NOW + 4)
    assert resumed == replace(schedule, next_run_at=NOW + 9, revision=3, updated_at=NOW + 4)


async def test_a_tick_that_fails_half_way_leaves_nothing(bench: Bench) -> None:
    schedule = await bench.schedule(overlap=True)
    twice = bench.run()
    ticks = [NewTick(at=NOW + number, outcome=TickOutcome.RUN, run=twice) for number in range(2)]
    with pytest.raises(ValueError, match="UNIQUE"):
        await bench.store.schedules.tick(schedule, ticks, next_run_at=NOW + 9, now=NOW)
    assert await bench.store.schedules.all() == [schedule]
    assert (await bench.runs(), await bench.store.schedules.ticks(schedule, before=None, limit=9)) == ([], [])


# Triggers


async def test_a_new_trigger_begins_after_the_last_event_and_keeps_its_place(bench: Bench) -> None:
    [_, head] = await bench.publish(b"1", b"2")
    await bench.publish(b"3", topic="another")
    trigger = await bench.trigger()
    assert trigger.cursor == head
    await bench.publish(b"4")
    again = await bench.trigger(deployment_id="d2", queue_name="q2", batch_size=3, batch_timeout_seconds=4, now=NOW + 1)
    assert again == replace(
        trigger,
        deployment_id="d2",
        queue_name="q2",
        batch_size=3,
        batch_timeout_seconds=4,
        revision=2,
        updated_at=NOW + 1,
    )
    assert (await bench.trigger(topic="empty")).cursor == 0
    assert len(await bench.store.triggers.all()) == 2


async def test_pending_events_come_in_their_order_and_no_more_than_wanted(bench: Bench) -> None:
    trigger = await bench.trigger()
    assert await bench.store.triggers.pending(trigger, limit=2, most_bytes=100) == Pending(events=[], more=False)
    sequences = await bench.publish(b"1" * 60, b"2" * 40, b"3" * 60)
    await bench.publish(b"4", topic="another")
    for limit, most_bytes, count in (
        (10, 1_000, 3),
        (3, 1_000, 3),
        (2, 1_000, 2),
        (10, 100, 2),
        (10, 99, 1),
        (10, 1, 1),
    ):
        pending = await bench.store.triggers.pending(trigger, limit=limit, most_bytes=most_bytes)
        assert [event.sequence for event in pending.events] == sequences[:count]
        assert pending.more == (count < 3)


async def test_events_are_done_with_when_their_runs_are_made(bench: Bench) -> None:
    trigger = await bench.trigger()
    [first, second] = await bench.publish(b"1", b"2")
    new = bench.run(queue_name="q")
    fired = await bench.store.triggers.fire(trigger, [new], cursor=first)
    assert ([run.id for run in fired.changed], await bench.runs()) == ([new.id], [new.id])
    assert fired.trigger == replace(trigger, cursor=first, revision=2)
    assert await bench.store.triggers.all() == [fired.trigger]
    again = await bench.store.triggers.fire(trigger, [bench.run()], cursor=first)
    assert (again.trigger, again.changed) == (fired.trigger, ())
    pending = await bench.store.triggers.pending(fired.trigger, limit=9, most_bytes=9)
    assert [event.sequence for event in pending.events] == [second]
    assert await bench.runs() == [new.id]


async def test_a_trigger_that_fails_half_way_leaves_nothing(bench: Bench) -> None:
    trigger = await bench.trigger()
    [sequence] = await bench.publish(b"1")
    twice = bench.run()
    with pytest.raises(ValueError, match="UNIQUE"):
        await bench.store.triggers.fire(trigger, [twice, twice], cursor=sequence)
    assert (await bench.runs(), await bench.store.triggers.all()) == ([], [trigger])


async def test_a_trigger_is_deleted_by_its_own_project(bench: Bench) -> None:
    trigger = await bench.trigger()
    assert not await bench.store.triggers.delete("another", trigger.id)
    assert await bench.store.triggers.delete(bench.project_id, trigger.id)
    assert not await bench.store.triggers.delete(bench.project_id, trigger.id)
    assert (await bench.store.triggers.fire(trigger, [bench.run()], cursor=1)).trigger is None
    assert await bench.runs() == []
