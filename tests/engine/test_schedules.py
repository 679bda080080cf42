"""Schedules tick at their moments, once, whatever happens to clocks, runs, deployments and the server meanwhile."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from dormice.domain.automation import CatchUp, ScheduleStatus
from dormice.domain.errors import Invalid, NotFound
from dormice.domain.moments import micros
from dormice.domain.run import RunState
from dormice.engine.runs.policy import RunPolicy
from tests.engine.faulty_store import Faults
from tests.engine.run_lab import RunLab, StoppedClock, lab

MINUTE, HOUR, DAY = 60, 3_600, 86_400
NOON = "2026-06-01T12:00:00+00:00"


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock(NOON)


async def test_every_tick_makes_a_run_with_what_the_contract_says(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        schedule_id = await at.schedule("*/2 * * * *", "Asia/Kolkata", key="somebody", overlap=True)
        await at.forward(MINUTE)
        assert await at.runs() == []
        await at.forward(MINUTE)
        await at.forward(2 * MINUTE)
        common = {"timezone": "Asia/Kolkata", "schedule_id": schedule_id, "key": "somebody"}
        assert await at.payloads() == [
            common | times("2026-06-01T12:02", None, "2026-06-01T12:04"),
            common | times("2026-06-01T12:04", "2026-06-01T12:02", "2026-06-01T12:06"),
        ]
        for run in await at.runs():
            assert (run.workflow_id, run.queue_name, run.concurrency_key) == ("flow", "flow", "somebody")
            assert (run.deployment_id, run.session_id, run.root_id) == ("d1", None, None)


def times(timestamp: str, last: str | None, upcoming: str) -> dict[str, Any]:
    always = ":00.000000+00:00"
    return {
        "timestamp": timestamp + always,
        "last_timestamp": None if last is None else last + always,
        "upcoming": upcoming + always,
    }


async def test_no_tick_comes_before_its_moment(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        await at.schedule("1 * * * *")
        await at.forward(MINUTE - 0.01)
        assert await at.runs() == []
        await at.forward(0.01)
        assert await at.ticked() == ["2026-06-01T12:01"]


async def test_a_tick_is_skipped_while_a_run_is_open_and_that_is_told(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        schedule_id = await at.schedule("* * * * *")
        other = await at.schedule("* * * * *", key="other")
        await at.forward(MINUTE)
        await at.forward(MINUTE)
        first = (await at.runs())[0]
        assert len(await at.runs()) == 2, "keys do not stand in each other's way"
        for one in (schedule_id, other):
            assert await at.outcomes(one) == [("2026-06-01T12:01", "run"), ("2026-06-01T12:02", "skipped")]
        [skipped, _] = await at.engine.schedules.ticks(at.project, schedule_id, before=None, limit=10)
        assert skipped.run_id == first.id
        schedule = at.engine.schedules.find(at.project, schedule_id)
        assert schedule.last_run_at == micros("2026-06-01T12:01Z")
        assert schedule.last_skipped_at == micros("2026-06-01T12:02Z")
        await at.finish(first)
        await at.forward(MINUTE)
        assert (await at.outcomes(schedule_id))[-1] == ("2026-06-01T12:03", "run")
        assert (await at.payloads())[-1]["last_timestamp"] == "2026-06-01T12:01:00.000000+00:00"


async def test_overlap_is_there_for_who_asks_for_it(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        queue = (at.project.id, "d1", "flow")
        schedule_id = await at.schedule("* * * * *")
        assert at.engine._board.limits[queue] == 1
        assert await at.schedule("* * * * *", overlap=True) == schedule_id
        assert at.engine._board.limits[queue] is None, "or its runs would only wait for one another"
        for _ in range(3):
            await at.forward(MINUTE)
        assert [outcome for _, outcome in await at.outcomes(schedule_id)] == ["run"] * 3
        await at.schedule("* * * * *")
        assert at.engine.schedules.find(at.project, schedule_id).overlap, "what an order leaves open stays"
        await at.schedule("* * * * *", overlap=False)
        assert at.engine._board.limits[queue] == 1


async def test_a_schedule_that_is_put_again_as_it_was_loses_no_tick(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        schedule_id = await at.schedule("* * * * *", catch_up=CatchUp.ALL)
        at.clock.forward(MINUTE)  # due, and not yet taken
        assert await at.schedule("* * * * *") == schedule_id
        await at.settle()
        assert await at.ticked() == ["2026-06-01T12:01"]
        assert at.engine.schedules.find(at.project, schedule_id).catch_up is CatchUp.ALL
        await at.schedule("30 * * * *")
        await at.forward(10 * MINUTE)
        assert await at.ticked() == ["2026-06-01T12:01"], "it ticks otherwise now"
        assert at.engine.schedules.find(at.project, schedule_id).next_run_at == micros("2026-06-01T12:30Z")


MISSED = ["13:00", "14:00", "15:00"]


@pytest.mark.parametrize(
    ("catch_up", "away", "ran"),
    [
        (CatchUp.NONE, 3 * HOUR + 10 * MINUTE, []),
        (CatchUp.NONE, 3 * HOUR + 20, ["15:00"]),  # so late is not missed
        (CatchUp.ONE, 3 * HOUR + 10 * MINUTE, ["15:00"]),
        (CatchUp.ONE, 3 * HOUR, ["15:00"]),
        (CatchUp.ALL, 3 * HOUR + 10 * MINUTE, MISSED),
    ],
)
async def test_what_was_missed_while_the_server_was_down_is_caught_up_as_asked(
    tmp_path: Path, clock: StoppedClock, catch_up: CatchUp, away: float, ran: list[str]
) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        schedule_id = await at.schedule("0 * * * *", catch_up=catch_up)
    clock.forward(away)
    async with lab(tmp_path, clock) as at:
        assert await at.ticked() == [f"2026-06-01T{tick}" for tick in ran]
        assert await at.outcomes(schedule_id) == [
            (f"2026-06-01T{tick}", "run" if tick in ran else "missed") for tick in MISSED
        ]
        await at.forward(HOUR - (away - 3 * HOUR))
        last = (await at.outcomes(schedule_id))[-1]
        assert last == ("2026-06-01T16:00", "skipped" if ran else "run"), "no tick is taken twice, and none left out"
    async with lab(tmp_path, clock) as at:
        assert len(await at.outcomes(schedule_id)) == 4
        assert len(at.engine._board.runs) == max(1, len(ran))


async def test_runs_that_are_caught_up_follow_one_another(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        await at.schedule("0 * * * *", catch_up=CatchUp.ALL)
    clock.forward(3 * HOUR)
    async with lab(tmp_path, clock) as at:
        payloads = await at.payloads()
        instants = [payload["timestamp"] for payload in payloads]
        assert [payload["last_timestamp"] for payload in payloads] == [None, *instants[:-1]]
        assert [payload["upcoming"] for payload in payloads][:-1] == instants[1:]
        assert at.engine._board.limits[at.project.id, "d1", "flow"] == 1


async def test_catching_up_has_a_bound_however_long_it_was(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        schedule_id = await at.schedule("* * * * *", catch_up=CatchUp.ALL)
    clock.forward(10 * 365 * DAY)
    async with lab(tmp_path, clock, RunPolicy(caught_up_ticks=7)) as at:
        ticked = await at.ticked()
        assert (len(ticked), ticked[0][-5:], ticked[-1][-5:]) == (7, "11:54", "12:00")
        assert len(await at.outcomes(schedule_id)) == 7


async def test_what_was_missed_is_skipped_too_if_a_run_is_open(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        schedule_id = await at.schedule("0 * * * *", catch_up=CatchUp.ALL)
        await at.forward(HOUR)
    clock.forward(2 * HOUR)
    async with lab(tmp_path, clock) as at:
        assert [outcome for _, outcome in await at.outcomes(schedule_id)] == ["run", "skipped", "skipped"]


async def test_summer_time_begins_and_ends(tmp_path: Path) -> None:
    """Berlin, 2026: clocks are put forward on March 29 (01:00 UTC) and back on October 25 (01:00 UTC)."""
    for start, expected in (
        ("2026-03-27T12:00:00+00:00", ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"]),
        ("2026-10-23T12:00:00+00:00", ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"]),
    ):
        directory = tmp_path / start[:7]
        directory.mkdir()
        async with lab(directory, StoppedClock(start)) as at:
            await at.register("d1", scheduled=True)
            await at.schedule("30 2 * * *", "Europe/Berlin", overlap=True)
            for _ in range(3 * 24 * 6):
                await at.forward(10 * MINUTE)
            assert await at.ticked() == expected


async def test_the_host_s_clock_is_put_back(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        schedule_id = await at.schedule("0 * * * *", overlap=True)
        await at.forward(HOUR)
    async with lab(tmp_path, StoppedClock(NOON)) as at:  # a server that begins anew knows nothing of the hour that was
        for _ in range(4):
            await at.forward(HOUR / 2)
        assert await at.ticked() == ["2026-06-01T13:00", "2026-06-01T14:00"]
        await at.engine.schedules.pause(at.project, schedule_id)
    async with lab(tmp_path, StoppedClock(NOON)) as at:
        assert (await at.engine.schedules.resume(at.project, schedule_id)).next_run_at == micros("2026-06-01T13:00Z")
        for _ in range(3):
            await at.forward(HOUR)
        ticked = ["2026-06-01T13:00", "2026-06-01T14:00", "2026-06-01T15:00"]
        assert await at.ticked() == ticked, "a moment that comes again makes no second run"


async def test_the_host_s_clock_is_put_back_while_the_server_runs(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        await at.schedule("0 * * * *", overlap=True)
        clock.set_by(-MINUTE)  # what is recorded goes at half its pace for two minutes then
        for _ in range(61):
            assert await at.runs() == []
            await at.forward(MINUTE)
        assert await at.ticked() == ["2026-06-01T13:00"]


async def test_the_host_was_suspended(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        await at.schedule("0 * * * *", overlap=True)
        clock.set_by(HOUR - 2 * MINUTE)  # the steady clock stood still
        await at.forward(MINUTE)
        assert await at.runs() == []
        await at.forward(MINUTE)
        assert await at.ticked() == ["2026-06-01T13:00"]


async def test_a_paused_schedule_does_not_tick_and_goes_on_from_now_on(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        schedule_id = await at.schedule("0 * * * *", catch_up=CatchUp.ALL)
        paused = await at.engine.schedules.pause(at.project, schedule_id)
        assert paused.status is ScheduleStatus.PAUSED
        assert await at.engine.schedules.pause(at.project, schedule_id) == paused
        assert at.engine.schedules.upcoming(paused, 3) == []
        await at.schedule("0 * * * *")  # as a worker does that comes again
        await at.forward(2 * HOUR)
    async with lab(tmp_path, clock) as at:
        await at.forward(HOUR)
        assert await at.runs() == []
        resumed = await at.engine.schedules.resume(at.project, schedule_id)
        assert (resumed.status, resumed.next_run_at) == (ScheduleStatus.ACTIVE, micros("2026-06-01T16:00Z"))
        assert await at.engine.schedules.resume(at.project, schedule_id) == resumed
        await at.forward(HOUR)
        assert await at.ticked() == ["2026-06-01T16:00"]


async def test_a_deleted_schedule_is_gone_and_its_runs_are_not(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        schedule_id = await at.schedule("0 * * * *", overlap=True)
        await at.forward(HOUR)
        await at.engine.schedules.delete(at.project, schedule_id)
        await at.forward(HOUR)
        assert len(await at.runs()) == 1
        assert (at.engine.schedules.all(at.project), at.engine.schedules.workflows(at.project)) == ([], [])
        with pytest.raises(NotFound):
            await at.engine.schedules.delete(at.project, schedule_id)
        assert await at.schedule("0 * * * *") != schedule_id


async def test_a_run_goes_to_the_newest_deployment_that_has_the_workflow_scheduled(
    tmp_path: Path, clock: StoppedClock
) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("old", scheduled=True)
        await at.schedule("* * * * *", overlap=True)
        await at.register("new", scheduled=True)  # the schedule is a dynamic one: nobody puts it again
        await at.forward(MINUTE)
        await at.register("newest", scheduled=False)
        await at.forward(MINUTE)
        await at.register("old", scheduled=True)  # a deployment is taken back
        await at.forward(MINUTE)
        assert [run.deployment_id for run in await at.runs()] == ["new", "new", "old"]
        limits = at.engine._board.limits
        assert (at.project.id, "new", "flow") in limits, "its queue is there, so that it can be claimed"
        queues = {(queue.deployment_id, queue.name) for queue in await at.store.projects.queues()}
        assert {("new", "flow"), ("old", "flow")} <= queues


async def test_a_queue_that_a_tick_makes_has_the_limit_of_schedules(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("old", scheduled=True)
        await at.schedule("* * * * *")
        await at.register("new", scheduled=True)
        await at.forward(MINUTE)
        assert at.engine._board.limits[at.project.id, "new", "flow"] == 1
    async with lab(tmp_path, clock) as at:
        assert at.engine._board.limits[at.project.id, "new", "flow"] == 1


async def test_a_tick_that_nobody_serves_is_told(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        schedule_id = await at.schedule("* * * * *")
        await at.register("d1", scheduled=False)
        await at.forward(MINUTE)
        assert await at.outcomes(schedule_id) == [("2026-06-01T12:01", "unserved")]
        with pytest.raises(Invalid, match="scheduled"):
            await at.schedule("* * * * *")


async def test_projects_do_not_see_one_another_s_schedules(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        schedule_id = await at.schedule("* * * * *")
        await at.register("d2", scheduled=True, project=at.other)
        await at.forward(MINUTE)
        assert [run.deployment_id for run in await at.runs()] == ["d1"]
        assert at.engine.schedules.all(at.other) == []
        for ask in (at.engine.schedules.pause, at.engine.schedules.resume, at.engine.schedules.delete):
            with pytest.raises(NotFound):
                await ask(at.other, schedule_id)


async def test_a_project_may_have_so_many_schedules_and_change_them(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock, RunPolicy(schedules_per_project=2)) as at:
        await at.register("d1", scheduled=True)
        first = await at.schedule("* * * * *", key="1")
        await at.schedule("* * * * *", key="2")
        with pytest.raises(Invalid, match="at most 2"):
            await at.schedule("* * * * *", key="3")
        assert await at.schedule("1 * * * *", key="1") == first


async def test_the_next_ticks_are_told(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        await at.schedule("0 9 * * 1-5", "America/New_York")
        [schedule] = at.engine.schedules.all(at.project, "flow")
        assert at.engine.schedules.upcoming(schedule, 2) == [
            micros("2026-06-01T13:00Z"),
            micros("2026-06-02T13:00Z"),
        ]
        assert at.engine.schedules.upcoming(schedule, 0) == []


async def test_many_schedules_of_one_moment_all_tick(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        for number in range(700):
            await at.schedule("0 * * * *", key=str(number))
        await at.forward(HOUR)
        assert len({run.concurrency_key for run in await at.runs()}) == 700


def test_the_lab_s_clock_is_as_told(clock: StoppedClock) -> None:
    assert clock.now() == micros(NOON)


async def test_a_zone_that_is_gone_stops_one_schedule_and_nothing_else(tmp_path: Path, clock: StoppedClock) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        lost, kept = await at.schedule("* * * * *", key="lost"), await at.schedule("* * * * *", key="kept")
        await _move_to_a_zone_that_is_none(at, lost)
    async with lab(tmp_path, clock) as at:
        await at.forward(MINUTE)
        assert [run.concurrency_key for run in await at.runs()] == ["kept"]
        assert (await at.outcomes(lost), len(await at.outcomes(kept))) == ([], 1)
        assert at.engine.schedules.upcoming(at.engine.schedules.find(at.project, lost), 1) == []
        assert await at.schedule("* * * * *", key="lost") == lost
        await at.forward(MINUTE)
        assert len(await at.outcomes(lost)) == 1


async def _move_to_a_zone_that_is_none(at: RunLab, schedule_id: str) -> None:
    """As an update of the host's time zones would."""
    sql = "UPDATE schedules SET timezone = 'Mars/Olympus' WHERE id = ?"
    await at.store._writer.run(lambda db: db.execute(sql, (schedule_id,)) and None)


async def test_a_store_that_fails_makes_no_tick_come_twice_or_never(tmp_path: Path, clock: StoppedClock) -> None:
    faults = Faults()
    async with lab(tmp_path, clock, wrap=faults.wrap) as at:
        await at.register("d1", scheduled=True)
        schedule_id = await at.schedule("* * * * *", overlap=True)
        faults.fail("tick", times=2)
        await at.forward(MINUTE)
        await at.forward(MINUTE)
        assert await at.outcomes(schedule_id) == [("2026-06-01T12:01", "run"), ("2026-06-01T12:02", "run")]
        assert faults.calls["tick"] == 4


async def test_a_schedule_that_is_changed_or_deleted_while_it_ticks(tmp_path: Path, clock: StoppedClock) -> None:
    faults = Faults()
    async with lab(tmp_path, clock, wrap=faults.wrap) as at:
        await at.register("d1", scheduled=True)
        schedule_id = await at.schedule("* * * * *", overlap=True)
        async with faults.late("tick") as reached:
            tick = asyncio.ensure_future(at.forward(MINUTE))
            await reached.wait()  # its run is committed, and the engine does not know it yet
            await at.schedule("* * * * *", catch_up=CatchUp.ONE)
        await tick
        await at.forward(MINUTE)
        assert await at.ticked() == ["2026-06-01T12:01", "2026-06-01T12:02"]
        async with faults.late("tick") as reached:
            tick = asyncio.ensure_future(at.forward(MINUTE))
            await reached.wait()
            await at.engine.schedules.delete(at.project, schedule_id)
        await tick
        await at.forward(MINUTE)
        assert (at.engine.schedules.all(at.project), len(await at.runs())) == ([], 3)


WANTS_A_CITY = json.dumps({"input_schema": {"required": ["city"]}}).encode()


async def test_a_schedule_whose_ticks_the_workflow_does_not_take_is_refused(
    tmp_path: Path, clock: StoppedClock
) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True, spec=WANTS_A_CITY)
        with pytest.raises(Invalid, match='"city" is a required property') as refused:
            await at.schedule("* * * * *")
        assert (refused.value.status, refused.value.location) == (400, "body.workflow_id")
        assert at.engine.schedules.all(at.project) == []
        await at.register("d2", scheduled=True)
        schedule_id = await at.schedule("* * * * *")
        await at.register("d3", scheduled=True, spec=WANTS_A_CITY)
        with pytest.raises(Invalid, match='"city" is a required property'):
            await at.schedule("30 * * * *")
        assert at.engine.schedules.find(at.project, schedule_id).cron == "* * * * *"


async def test_a_tick_that_the_workflow_does_not_take_any_more_makes_a_run_that_has_failed(
    tmp_path: Path, clock: StoppedClock
) -> None:
    async with lab(tmp_path, clock) as at:
        await at.register("d1", scheduled=True)
        schedule_id = await at.schedule("* * * * *")
        await at.register("d2", scheduled=True, spec=WANTS_A_CITY)
        await at.forward(MINUTE)
        await at.forward(MINUTE)
    async with lab(tmp_path, clock) as at:
        assert [outcome for _, outcome in await at.outcomes(schedule_id)] == ["run", "run"], (
            "what has ended is not open"
        )
        for run in await at.runs():
            assert (run.state, run.deployment_id, run.started_at) == (RunState.FAILED, "d2", None)
            assert run.error == 'payload does not fit the workflow\'s input_schema: "city" is a required property'
        assert not at.engine._board.runs
