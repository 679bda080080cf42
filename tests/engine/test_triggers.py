"""Events start runs: each event once, at once, of its own project, for the deployment that wants it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from dormice.domain.errors import Invalid, NotFound
from dormice.domain.run import RunState
from dormice.engine.runs import triggers
from dormice.engine.runs.events import EventOrder
from dormice.engine.runs.orders import TriggerOrder
from dormice.engine.runs.policy import RunPolicy
from dormice.store.workflows import NewEvent
from tests.engine.faulty_store import Faults
from tests.engine.run_lab import RunLab, StoppedClock, lab

NOON = "2026-06-01T12:00:00+00:00"


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock(NOON)


async def told(at: RunLab) -> list[Any]:
    """The data of the events of each run: of a batch as a list."""
    return [
        [event["data"] for event in payload["events"]] if "events" in payload else payload["data"]
        for payload in await at.payloads()
    ]


async def test_each_event_starts_a_run_that_is_given_it(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger(queue_name="q")
        await at.publish({"n": 1}, {"n": 2})
        await at.publish({"n": 3}, topic="another")
        events = await at.engine.events.page(at.project, "t", after=0, limit=10)
        assert [payload["id"] for payload in await at.payloads()] == [event.id for event in events]
        payload = (await at.payloads())[0]
        assert set(payload) == {"id", "sequence_id", "topic", "event_type", "data", "created_at"}
        assert (payload["data"], payload["event_type"], payload["topic"]) == ({"n": 1}, "told", "t")
        run = (await at.runs())[0]
        assert (run.workflow_id, run.queue_name, run.deployment_id) == ("flow", "q", "d1")
        assert (run.session_id, run.concurrency_key) == (None, None)
        assert (at.project.id, "d1", "q") in at.engine._board.limits


async def test_a_new_trigger_begins_with_the_next_event(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True)
        await at.publish("before")
        await at.trigger()
        assert await at.runs() == []
        await at.publish("after")
        assert await told(at) == ["after"]


async def test_a_trigger_that_is_registered_again_goes_on_where_it_is(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger()
        await at.publish(1)
        await at.register("d2", trigger_on_event=True)  # from here on d1's trigger is not wanted any more
        await at.publish(2)
        assert await told(at) == [1]
        await at.trigger("d2")
        await at.publish(3)
        await at.trigger("d2")
        assert await told(at) == [1, 2, 3]
        assert [run.deployment_id for run in await at.runs()] == ["d1", "d2", "d2"]
        assert len(at.engine.triggers.all(at.project)) == 1


async def test_a_deployment_that_wants_no_events_any_more_gets_none(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger()
        await at.register("d2", trigger_on_event=True)
        await at.trigger("d2", topic="t2")
        await at.publish("nobody's")
        await at.publish("d2's", topic="t2")
        assert await told(at) == ["d2's"], "d1 may have no workers: nothing is put into its queue"
        assert [at.engine.triggers.fires(one) for one in at.engine.triggers.all(at.project)] == [False, True]
        await at.register("d1", trigger_on_event=True)  # d2 is taken back
        await at.trigger()
        assert await told(at) == ["d2's", "nobody's"]


async def test_batches_go_when_they_are_full(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger(batch_size=3, batch_timeout_seconds=60)
        await at.publish(1)
        await at.publish(2)
        await at.forward(59)
        assert await at.runs() == []
        await at.publish(3, 4, 5, 6, 7)
        assert await told(at) == [[1, 2, 3], [4, 5, 6]]
        await at.publish(8, 9)
        assert (await told(at))[2:] == [[7, 8, 9]]


async def test_a_batch_goes_when_its_oldest_event_has_waited_long_enough(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger(batch_size=3, batch_timeout_seconds=60)
        await at.publish(1)
        await at.forward(30)
        await at.publish(2)
        await at.forward(29.99)
        assert await at.runs() == []
        await at.forward(0.01)
        assert await told(at) == [[1, 2]]
        await at.publish(3)
        await at.forward(59.9)
        assert len(await at.runs()) == 1, "the next batch has time of its own"


async def test_a_batch_without_time_goes_with_what_is_there(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger(batch_size=3)
        await at.publish(1)
        await at.publish(2, 3, 4, 5)
        assert await told(at) == [[1], [2, 3, 4], [5]]


async def test_a_single_event_with_time_is_a_batch_of_one(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger(batch_size=1, batch_timeout_seconds=60)
        await at.publish(1, 2)
        assert await told(at) == [[1], [2]]


async def test_a_batch_that_is_large_goes_before_it_is_full(
    tmp_path: Path, clock: StoppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "MOST_BYTES", 100)
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger(batch_size=10, batch_timeout_seconds=60)
        texts = ["a" * 40, "b" * 40, "c" * 40, "d" * 400]
        await at.publish(*texts)
        assert await told(at) == [texts[:2], texts[2:3]]
        await at.forward(60)
        assert await told(at) == [texts[:2], texts[2:3], texts[3:]]


async def test_nothing_is_lost_or_done_twice_by_a_restart(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger(batch_size=3, batch_timeout_seconds=60)
        await at.publish(1)
        await at.publish(2, 3, 4)
        assert await told(at) == [[1, 2, 3]]
    clock.forward(30)
    async with lab(tmp_path, clock) as at:
        assert await told(at) == [[1, 2, 3]]
        await at.forward(30)
        assert await told(at) == [[1, 2, 3], [4]]
        event = NewEvent(id="e", event_type=None, data=b"5")
        await at.store.events.publish(at.project.id, "t", [event], now=clock.now())  # and its hint is lost
    clock.forward(60)
    async with lab(tmp_path, clock) as at:
        assert await told(at) == [[1, 2, 3], [4], [5]]


async def test_a_long_backlog_is_worked_off_in_pieces(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger()
        many = list(range(3 * triggers.AT_ONCE + 5))
        await at.publish(*many)
        await at.settle()
        assert await told(at) == many


async def test_publications_at_the_same_time_start_one_run_for_each_event(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True)
        await at.register("d1", "second", trigger_on_event=True)
        await at.trigger()
        await at.trigger(workflow_id="second", batch_size=4, batch_timeout_seconds=1)
        await asyncio.gather(*(at.publish(number) for number in range(100)))
        await at.settle()
        runs, payloads = await at.runs(), await at.payloads()
        single = [payload["data"] for run, payload in zip(runs, payloads, strict=True) if run.workflow_id == "flow"]
        batches = [payload["events"] for payload in payloads if "events" in payload]
        assert sorted(single) == list(range(100))
        assert [event["data"] for batch in batches for event in batch] == single
        assert {len(batch) for batch in batches} == {4}


async def test_a_project_s_events_start_no_run_of_another_one(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        for project in (at.project, at.other):
            await at.register("d1", trigger_on_event=True, project=project)
            await at.trigger(project=project)
        await at.publish("mine")
        await at.publish("theirs", project=at.other)
        assert [payload["data"] for payload in await at.payloads()] == ["mine"]
        assert [payload["data"] for payload in await at.payloads(at.other)] == ["theirs"]
        [trigger] = at.engine.triggers.all(at.other)
        with pytest.raises(NotFound):
            await at.engine.triggers.delete(at.project, trigger.id)


async def test_a_deleted_trigger_fires_no_more(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger(batch_size=2, batch_timeout_seconds=10)
        await at.publish(1)
        [trigger] = at.engine.triggers.all(at.project)
        await at.engine.triggers.delete(at.project, trigger.id)
        await at.publish(2)
        await at.forward(10)
        assert await at.runs() == []
        assert at.engine.triggers.all(at.project) == []


async def test_a_deployment_that_does_not_have_the_workflow_is_refused(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True)
        for fields in ({"deployment": "d2"}, {"workflow_id": "unknown"}, {"project": at.other}):
            with pytest.raises(Invalid, match="register it first") as refused:
                await at.trigger(**fields)
            assert (refused.value.location, refused.value.status) == ("body.workflow_id", 400)


async def test_a_project_may_have_so_many_triggers_and_change_them(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock, RunPolicy(triggers_per_project=1)) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger()
        with pytest.raises(Invalid, match="at most 1"):
            await at.trigger(topic="t2")
        await at.trigger(batch_size=2)
        assert [one.batch_size for one in at.engine.triggers.all(at.project)] == [2]


async def test_a_store_that_fails_makes_no_event_start_two_runs_or_none(tmp_path: Path, clock: StoppedClock) -> None:
    faults = Faults()
    async with lab(tmp_path, clock, wrap=faults.wrap) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger()
        for operation in ("fire", "pending"):
            faults.fail(operation, times=2)
            await at.publish(operation)
        assert await told(at) == ["fire", "pending"]
        assert faults.calls["fire"] == 4


async def test_a_trigger_that_is_changed_while_it_fires_does_not_fire_twice(
    tmp_path: Path, clock: StoppedClock
) -> None:
    faults = Faults()
    async with lab(tmp_path, clock, wrap=faults.wrap) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger()
        async with faults.late("fire") as reached:
            publication = asyncio.ensure_future(at.publish(1))
            await reached.wait()  # its runs are committed, and the engine does not know it yet
            order = TriggerOrder(workflow_id="flow", deployment_id="d1", topic="t", batch_size=2)
            await at.engine.triggers.register(at.project, order)
        await publication
        await at.publish(2)
        assert await told(at) == [1, [2]]


async def test_a_trigger_that_is_deleted_while_it_fires_stays_deleted(tmp_path: Path, clock: StoppedClock) -> None:
    faults = Faults()
    async with lab(tmp_path, clock, wrap=faults.wrap) as at:
        await at.register("d1", trigger_on_event=True)
        await at.trigger()
        [trigger] = at.engine.triggers.all(at.project)
        async with faults.late("fire") as reached:
            publication = asyncio.ensure_future(at.publish(1))
            await reached.wait()
            await at.engine.triggers.delete(at.project, trigger.id)
        await publication
        await at.publish(2)
        assert (at.engine.triggers.all(at.project), await told(at)) == ([], [1])


SMALL_N = {"properties": {"data": {"properties": {"n": {"type": "integer", "maximum": 3}}}}}


async def test_an_event_that_does_not_fit_the_workflow_makes_a_run_that_has_failed(
    tmp_path: Path, clock: StoppedClock
) -> None:
    async with lab(tmp_path, clock) as at:
        spec = json.dumps({"input_schema": SMALL_N}).encode()
        await at.register("d1", trigger_on_event=True, spec=spec)
        await at.trigger()
        await at.publish({"n": 987_654}, {"n": 1})
        before = await at.runs()
    async with lab(tmp_path, clock) as at:
        failed, queued = runs = await at.runs()
        assert runs == before, "no event starts a run twice"
        assert (failed.state, queued.state) == (RunState.FAILED, RunState.QUEUED)
        assert failed.error is not None
        assert failed.error.startswith("payload['data']['n'] does not fit the workflow's input_schema")
        assert "987654" not in failed.error
        assert (failed.started_at, failed.retry_count) == (None, 0)
        assert failed.completed_at == failed.created_at
        assert set(at.engine._board.runs) == {queued.id}


@pytest.mark.parametrize("document", [b"1e400", b"[-1e999]"])
async def test_an_event_that_cannot_be_judged_does_not_fit(
    tmp_path: Path, clock: StoppedClock, document: bytes
) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", trigger_on_event=True, spec=json.dumps({"input_schema": SMALL_N}).encode())
        await at.trigger()
        await at.engine.events.publish(at.project, "t", [EventOrder(event_type="told", data=document)])
        await at.publish({"n": 1})
        failed, queued = await at.runs()
        assert (failed.state, queued.state) == (RunState.FAILED, RunState.QUEUED)
        assert (failed.error or "").startswith("payload cannot be compared with the workflow's input_schema: ")


async def test_a_batch_of_which_one_event_does_not_fit_fails_as_a_whole(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        schema = {"properties": {"events": {"items": SMALL_N}}}
        await at.register("d1", trigger_on_event=True, spec=json.dumps({"input_schema": schema}).encode())
        await at.trigger(batch_size=2)
        await at.publish({"n": 1}, {"n": 4}, {"n": 2}, {"n": 3})
        failed, queued = await at.runs()
        assert (failed.state, queued.state) == (RunState.FAILED, RunState.QUEUED)
        assert "payload['events'][1]['data']['n']" in (failed.error or "")
